"""Yes or no: images, each with a question such as `is it an animal?`. Half of the answers are yes."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.tasks import game
from flamingo_jax.tasks.episode import Episode, Part
from flamingo_jax.tasks.kinds import Kinds, as_question, draw, exclude, with_article


def is_it(kind: str, kinds: Sequence[str], rng: np.random.Generator) -> tuple[str, str]:
    """A question about something of this kind, with its answer, which is yes half of the time."""
    if rng.random() < 0.5:
        return f'is it {with_article(kind)}?', 'yes'
    others = [other for other in kinds if exclude(kind, other)]
    return f'is it {with_article(others[rng.integers(len(others))])}?', 'no'


class YesOrNo(game.Game):
    """Whether an image shows a kind of thing."""

    @dataclasses.dataclass
    class Sequences(Kinds.Sequences):
        """Images, each with its own question."""

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """The kinds equally often."""
            chunks = []
            for _ in range(self.shots):
                kind, image = draw(rng, self.of_kind)
                seen = self.seen(rng, image)
                question, answer = is_it(kind, list(self.of_kind), rng)
                chunks.append(Chunk(seen, (as_question(question), f' {answer}'), (0.0, 1.0)))
            return chunks

    @dataclasses.dataclass
    class Episodes(Kinds.Episodes):
        """Whether an image shows a kind of thing."""

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` images with a question and its answer each, then another."""
            kinds = tuple(self.asked)
            kind, query = draw(rng, self.asked)
            question, truth = is_it(kind, kinds, rng)
            shown = []
            for _ in range(shots):
                of, image = self.example_of(rng, query)
                about, answer = is_it(of, kinds, rng)
                shown.append(Part(image, self.support, f'{as_question(about)} {answer}'))
            return Episode(tuple(shown), (Part(query, self.queries, as_question(question)),), truth, ('yes', 'no'))

        def nearest(self, episode: Episode) -> tuple[str, str] | None:
            """Whether the nearest kind is the one in the question."""
            (query,) = episode.query
            found = self.nearest_kind(query.image, tuple(self.shown))
            nearest, other = ('yes' if f' {with_article(kind)}?' in query.text else 'no' for kind in found)
            return nearest, other
