"""Which: two images, labelled ` first` and ` second`, then a question about one of them.

which is an animal?   what kind is the first?     of images of different kinds
which is a dog?       what is the first?          of different things, about half of them of one subcategory
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.tasks import game, things
from flamingo_jax.tasks.episode import Episode, Part, Pool
from flamingo_jax.tasks.kinds import Kinds, as_question, with_article

ORDINALS = ('first', 'second')


def beginnings(kinds: bool) -> tuple[str, str]:
    """How a question begins that asks for the place, and one that asks for the kind or name."""
    return 'which is ', 'what kind is the ' if kinds else 'what is the '


def of_two(
    labels: tuple[str, str], beginnings: tuple[str, str], rng: np.random.Generator, begins: str = ''
) -> tuple[str, str]:
    """A question about the first or the second of two things, with its answer.

    Args:
      labels: of the two things.
      beginnings: of a question that asks for the place, and of one that asks for the label.
      begins: draws until the question begins so.
    """
    while True:
        which = int(rng.integers(2))
        if rng.random() < 0.5:
            question, answer = f'{beginnings[0]}{with_article(labels[which])}?', ORDINALS[which]
        else:
            question, answer = f'{beginnings[1]}{ORDINALS[which]}?', labels[which]
        if question.startswith(begins):
            return question, answer


class Which(game.Game):
    """A question about one of two images, by the kinds or the names of what they show."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Pairs, each with its question."""

        kinds: dict[str, str] = dataclasses.field(default_factory=dict)  # Those of `Kinds`; {} asks for names.

        def open(self, images: ImageSet, shots: int) -> None:
            """Finds the images that have a kind or a name."""
            super().open(images, shots)
            self._labels = Kinds.Sequences(kinds=self.kinds) if self.kinds else things.Sequences()
            self._labels.open(images, shots)

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """Half as many pairs as there are images in a sequence."""
            chunks: list[Chunk] = []
            for _ in range(self.shots // 2):
                labels = []
                for image, place in zip(self._labels.pair(rng), ORDINALS, strict=True):
                    chunks.append(Chunk(self._labels.seen(rng, image), (f' {place}',), (0.0,)))
                    labels.append(self._labels.label(image))
                question, answer = of_two((labels[0], labels[1]), beginnings(bool(self.kinds)), rng)
                chunks.append(Chunk(None, (as_question(question), f' {answer}'), (0.0, 1.0)))
            return chunks

    @dataclasses.dataclass
    class Episodes(game.Episodes):
        """A question about one of two images; a shot is a pair."""

        kinds: dict[str, str] = dataclasses.field(default_factory=dict)  # As in training.
        questions: str = ''  # Ask only the questions that begin so.

        several_parts: ClassVar[bool] = True

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Finds the images that have a kind or a name. There must be as many pairs as examples, and the query's.

            ValueError also if no question begins with `questions`, since drawing one would never end.
            """
            super().open(queries, support, shots, answers)
            self._labels = Kinds.Episodes(kinds=self.kinds) if self.kinds else things.Episodes()
            self._labels.open(queries, support, shots, answers)
            begin = beginnings(bool(self.kinds))
            if not any(beginning.startswith(self.questions) for beginning in begin):
                raise UserError(
                    f'`questions` is {self.questions!r}, but no question begins so. Give a beginning of one of {begin}.'
                )
            self._labels.require_pairs()

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` pairs with question and answer, then another pair."""
            examples, query, truth, candidates = [], (), '', ORDINALS
            for asked, pair in self._labels.pairs(rng, shots):
                pool = self.queries if asked else self.support
                labels = self._labels.label(pair[0]), self._labels.label(pair[1])
                question, answer = of_two(labels, beginnings(bool(self.kinds)), rng, self.questions)
                parts = [Part(image, pool, f' {place}') for image, place in zip(pair, ORDINALS, strict=True)]
                if asked:
                    query = (*parts, Part(None, pool, as_question(question)))
                    truth, candidates = answer, labels if answer in labels else ORDINALS
                else:
                    examples += [*parts, Part(None, pool, f'{as_question(question)} {answer}', label=answer)]
            return Episode(tuple(examples), query, truth, candidates)
