"""Which thing: two images, labelled ` first` and ` second`, then `which is a dog?` or `what is the first?`.

`Which` asks about kinds. Here about half of the pairs are of one subcategory, such as a cat and a dog.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.image_set import LabelledImage
from flamingo_jax.tasks import game, things
from flamingo_jax.tasks.episode import Episode, Part, Pool
from flamingo_jax.tasks.kinds import as_question
from flamingo_jax.tasks.which import ORDINALS, of_two, pair_with_question, require_beginning

BEGINNINGS = ('which is ', 'what is the ')


class WhichThing(game.Game):
    """A question about one of two images, by the names of what they show."""

    @dataclasses.dataclass
    class Sequences(things.Sequences):
        """Pairs, each with its question."""

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """Half as many pairs as there are images in a sequence."""
            chunks: list[Chunk] = []
            for _ in range(self.shots // 2):
                one = self.of_concept(rng, self.concepts[rng.integers(len(self.concepts))], None)
                two = one, self.of_concept(rng, self.things.other(one, rng), one.style)
                names = tuple(self.things.names[image.concept] for image in two)
                chunks += pair_with_question([self.seen(rng, image) for image in two], names, BEGINNINGS, rng)
            return chunks

    @dataclasses.dataclass
    class Episodes(things.Episodes):
        """A question about one of two images; a shot is a pair."""

        questions: str = ''  # Ask only the questions that begin so.

        several_parts: ClassVar[bool] = True

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """There must be as many pairs as examples, without the query's two images."""
            super().open(queries, support, shots, answers)
            require_beginning(self.questions, BEGINNINGS)
            self.require((len(self.shown.images) - 2 * self.one_split) // 2, 'pairs of images with a name')
            # Else an example might never find a second thing.
            if shots and self.one_split and self.shown.fewest < 3:
                raise UserError(
                    f'some thing has only {self.shown.fewest} others with no word in common, which the query may show '
                    'both, so that no example can show one. Use more images, or another split for the support.'
                )

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` pairs with question and answer, then another pair."""
            query, question, truth, candidates = self._pair(rng, self.queries, self.asked, ())
            asked_about = [part.image for part in query]
            examples: list[Part] = []
            for _ in range(shots):
                shown, about, answer, _ = self._pair(rng, self.support, self.shown, asked_about)
                examples += [*shown, Part(None, self.support, f'{as_question(about)} {answer}')]
            query.append(Part(None, self.queries, as_question(question)))
            return Episode(tuple(examples), tuple(query), truth, candidates)

        def _pair(self, rng, pool: Pool, among: things.Things, shown: Sequence[LabelledImage]):
            free = self.without(among.images, shown)
            one = free[rng.integers(len(free))]
            of: list[LabelledImage] = []
            while not of:  # All images of the other thing may be shown elsewhere.
                of = self.without(among.by_concept[among.other(one, rng)], shown)
            two = one, of[rng.integers(len(of))]
            names = tuple(among.names[image.concept] for image in two)
            question, answer = of_two(names, BEGINNINGS, rng, self.questions)
            parts = [Part(image, pool, f' {place}') for image, place in zip(two, ORDINALS, strict=True)]
            return parts, question, answer, names if answer in names else ORDINALS
