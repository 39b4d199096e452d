"""Which: two images of different kinds, labelled ` first` and ` second`, then a question about one of them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import Frames
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.image_set import LabelledImage
from flamingo_jax.tasks import game
from flamingo_jax.tasks.episode import Episode, Part, Pool
from flamingo_jax.tasks.kinds import Kinds, as_question, exclude, with_article

BEGINNINGS = ('which is ', 'what kind is the ')
ORDINALS = ('first', 'second')


def two_kinds(rng: np.random.Generator, kinds: Sequence[str]) -> tuple[str, str]:
    """Two kinds that exclude each other."""
    while True:
        one, other = (kinds[int(i)] for i in rng.choice(len(kinds), 2, replace=False))
        if exclude(one, other):
            return one, other


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


def pair_with_question(
    seen: Sequence[Callable[[], Frames]],
    labels: tuple[str, str],
    beginnings: tuple[str, str],
    rng: np.random.Generator,
) -> list[Chunk]:
    """Two images with their places, and a question about one of them; `labels` and `beginnings` as for `of_two`."""
    chunks = [Chunk(image, (f' {place}',), (0.0,)) for image, place in zip(seen, ORDINALS, strict=True)]
    question, answer = of_two(labels, beginnings, rng)
    return [*chunks, Chunk(None, (as_question(question), f' {answer}'), (0.0, 1.0))]


def require_beginning(begins: str, beginnings: Sequence[str]) -> None:
    """ValueError if no question begins with `begins`, since drawing one would never end."""
    if not any(begin.startswith(begins) for begin in beginnings):
        raise UserError(
            f'`questions` is {begins!r}, but no question begins so. Give a beginning of one of {beginnings}.'
        )


class Which(game.Game):
    """A question about one of two images."""

    @dataclasses.dataclass
    class Sequences(Kinds.Sequences):
        """Pairs, each with its question."""

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """Half as many pairs as there are images in a sequence."""
            chunks: list[Chunk] = []
            for _ in range(self.shots // 2):
                two = two_kinds(rng, list(self.of_kind))
                images = (self.of_kind[kind] for kind in two)
                seen = [self.seen(rng, of[rng.integers(len(of))]) for of in images]
                chunks += pair_with_question(seen, two, BEGINNINGS, rng)
            return chunks

    @dataclasses.dataclass
    class Episodes(Kinds.Episodes):
        """A question about one of two images; a shot is a pair."""

        questions: str = ''  # Ask only the questions that begin so.

        several_parts: ClassVar[bool] = True

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Sorts images by kind."""
            super().open(queries, support, shots, answers)
            require_beginning(self.questions, BEGINNINGS)
            # The query is drawn last, from images that no example shows. An example shows at most one image of a
            # kind.
            shown = {image.index for of in self.shown.values() for image in of} if self.one_split else set()
            for kind, of in self.asked.items():
                free = sum(image.index not in shown for image in of)
                if free == 0 and len(of) <= shots:
                    raise UserError(
                        f'{shots} shots can show all {len(of)} images of {kind!r}, which leaves none for the query. '
                        'Use fewer shots, or other styles or another split for the support.'
                    )

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` pairs with question and answer, then another pair."""
            examples: list[Part] = []
            for _ in range(shots):
                pair, question, answer, _ = self._pair(rng, self.support, self.shown, ())
                examples += [*pair, Part(None, self.support, f'{as_question(question)} {answer}')]
            shown = [part.image for part in examples if part.image is not None]
            pair, question, truth, candidates = self._pair(rng, self.queries, self.asked, shown)
            return Episode(tuple(examples), (*pair, Part(None, self.queries, as_question(question))), truth, candidates)

        def nearest(self, episode: Episode) -> None:
            """None: nearest neighbours do not know first from second."""

        def _pair(self, rng, pool: Pool, of_kind: dict[str, list[LabelledImage]], shown: Sequence[LabelledImage]):
            two = two_kinds(rng, list(of_kind))
            pair = []
            for kind, place in zip(two, ORDINALS, strict=True):
                of = self.without(of_kind[kind], shown)
                pair.append(Part(of[rng.integers(len(of))], pool, f' {place}'))
            question, answer = of_two(two, BEGINNINGS, rng, self.questions)
            return pair, question, answer, two if answer in two else ORDINALS
