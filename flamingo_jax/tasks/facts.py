"""Facts: questions about what an image shows that no training sequence asks, such as `where does it live?`.

To answer, the model must know what it sees, and its language model must know the thing. The questions are in a JSON
file, with the English names of the things for which each answer is right:

    {"where does it live?": {"forest": ["bear", "fox"], "sea": ["shark"]}, ...}

There are no training sequences: the game shows what the frozen language model's knowledge is worth.
"""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.files import as_path
from flamingo_jax.inputs.sources.image_set import ImageSet, LabelledImage
from flamingo_jax.tasks import game
from flamingo_jax.tasks.episode import Episode, Part, Pool
from flamingo_jax.tasks.kinds import as_question, draw


class Facts(game.Game):
    """Questions that were never trained, about the things in the images."""

    @dataclasses.dataclass
    class Episodes(game.Episodes):
        """One question about an image, with examples of the same question; each of its answers is equally frequent."""

        facts: str = ''  # The JSON file.
        question: str = ''  # Ask only this question; '' asks all of them equally often.

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Finds the images of the things that the file knows.

            Raises:
              FileNotFoundError: there is no such file.
              ValueError: it lacks the question, or an answer has no image, or too few for the examples.
            """
            super().open(queries, support, shots, answers)
            path = as_path(self.facts)
            if not path.is_file():
                raise FileNotFoundError(
                    f'There are no facts at {self.facts!r}. Set `facts` to a JSON file of questions.'
                )
            facts = json.loads(path.read_text(encoding='utf-8'))
            if self.question and self.question not in facts:
                raise UserError(f'{path} has no question {self.question!r}, but only {sorted(facts)}.')
            facts = {self.question: facts[self.question]} if self.question else facts
            self._asked = _images(facts, queries.images)
            self._shown = _images(facts, support.images)
            if not self._asked:
                raise UserError(f'no image shows a thing that {path} knows. Change styles, split or facts.')
            for question in self._asked:
                # No example shows the thing that is asked about, nor one that another example shows.
                things = {p.concept for images in self._shown.get(question, {}).values() for p in images}
                self.require(max(len(things) - 1, 0), f'things for the question {question!r}')

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` images of other things with the question and its answer, then another."""
            question = list(self._asked)[rng.integers(len(self._asked))]
            truth, query = draw(rng, self._asked[question])
            shown, things = [], {query.concept}
            for _ in range(shots):
                left = {
                    answer: kept
                    for answer, images in self._shown[question].items()
                    if (kept := [image for image in images if image.concept not in things])
                }
                answer, image = draw(rng, left)
                things.add(image.concept)
                shown.append(Part(image, self.support, f'{as_question(question)} {answer}', label=answer))
            last = Part(query, self.queries, as_question(question))
            return Episode(tuple(shown), (last,), truth, tuple(self._asked[question]))


def _images(facts: dict[str, dict[str, list[str]]], images: ImageSet) -> dict[str, dict[str, list[LabelledImage]]]:
    """Question -> answer -> its images. A question of which fewer than two answers have images is left out."""
    named: dict[str, list[LabelledImage]] = {}
    for image in images.images:
        named.setdefault(image.names.get('en', ''), []).append(image)
    by_question = {}
    for question, answers in facts.items():
        of = {answer: [p for name in names for p in named.get(name, ())] for answer, names in answers.items()}
        of = {answer: shown for answer, shown in of.items() if shown}
        if len(of) > 1:
            by_question[question] = of
    return by_question
