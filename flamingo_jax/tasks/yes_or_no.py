"""Yes or no: images, each with a question such as `is it an animal?` or `is it a dog?`. Half of the answers are yes.

Kinds of things are few. Where names are asked for, half of the questions to which the answer is no are about a thing of
the same subcategory, such as a cat in place of a dog.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.tasks import game, things
from flamingo_jax.tasks.episode import Episode, Part, Pool
from flamingo_jax.tasks.kinds import Kinds, as_question, with_article


class YesOrNo(game.Game):
    """Whether an image shows a kind of thing, or the thing of a name."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Images, each with its own question."""

        kinds: dict[str, str] = dataclasses.field(default_factory=dict)  # Those of `Kinds`; {} asks for names.
        forms: tuple[str, ...] = ('is it {}?',)  # How it is asked.

        def open(self, images: ImageSet, shots: int) -> None:
            """Finds the images that have a kind or a name."""
            super().open(images, shots)
            self._labels = Kinds.Sequences(kinds=self.kinds) if self.kinds else things.Sequences()
            self._labels.open(images, shots)

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """The kinds, or the things, equally often."""
            drawn = [self._labels.asked(rng, self.forms) for _ in range(self.shots)]
            return [Chunk(seen, (as_question(asked), f' {answer}'), (0.0, 1.0)) for seen, asked, answer in drawn]

    @dataclasses.dataclass
    class Episodes(game.Episodes):
        """Whether an image shows a kind of thing, or the thing of a name."""

        kinds: dict[str, str] = dataclasses.field(default_factory=dict)  # As in training.
        form: str = 'is it {}?'  # How it is asked.

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Finds the images that have a kind or a name. There must be as many as examples, besides the query."""
            super().open(queries, support, shots, answers)
            self._labels = Kinds.Episodes(kinds=self.kinds) if self.kinds else things.Episodes()
            self._labels.open(queries, support, shots, answers)

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` images with a question and its answer each, then another."""
            query = self._labels.draw(rng)
            question, truth = self._labels.yes_or_no(self.form, query, rng, asked=True)
            shown = []
            for image in self._labels.examples(rng, query, shots):
                about, answer = self._labels.yes_or_no(self.form, image, rng, asked=False)
                shown.append(Part(image, self.support, f'{as_question(about)} {answer}', label=answer))
            return Episode(tuple(shown), (Part(query, self.queries, as_question(question)),), truth, ('yes', 'no'))

        def nearest(self, episode: Episode) -> tuple[str, str] | None:
            """Whether the nearest kind is the one in the question; None of names."""
            (query,) = episode.query
            if not (labels := self._labels.nearest_labels(query.image)):
                return None
            neighbour, centroid = ('yes' if f' {with_article(label)}?' in query.text else 'no' for label in labels)
            return neighbour, centroid
