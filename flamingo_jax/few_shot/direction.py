"""Direction: clips that play forward or backward."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.few_shot import game
from flamingo_jax.few_shot.episode import Episode, Pool
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet

DIRECTIONS = ('forward', 'backward')


def _only_clips(pictures: PictureSet) -> None:
    if pictures.blank.shape[0] < 2:
        raise UserError('only clips have a direction. Set `frames` to more than 1.')


class Direction(game.Game):
    """How a clip plays."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Clips with their direction."""

        def open(self, pictures: PictureSet, shots: int) -> None:
            """Clips only."""
            super().open(pictures, shots)
            _only_clips(pictures)

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """Any clips; half of them play backward."""
            chunks = []
            for i in rng.choice(len(self.pictures.pictures), self.shots):
                backward = rng.random() < 0.5
                clip = dataclasses.replace(self.pictures.pictures[i], backward=bool(backward))
                label = f' {DIRECTIONS[int(backward)]}'
                chunks.append(Chunk(self.seen(rng, clip), (self.prompt, label), (0.0, 1.0)))
            return chunks

    @dataclasses.dataclass
    class Episodes(game.Episodes):
        """Whether a clip plays forward or backward."""

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Takes clips only. There must be more of them than examples: the query is drawn last, from the rest."""
            super().open(queries, support, shots, answers)
            _only_clips(queries.pictures)
            clips, examples = queries.pictures.pictures, support.pictures.pictures
            shown = {clip.index for clip in examples} if self.one_split else set()
            if all(clip.index in shown for clip in clips):
                self.require(len(clips) - 1, 'clips')
            self.require(len(examples), 'clips')

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` clips with their direction, then another."""

            def draw(clips: Sequence[Picture]) -> tuple[Picture, str]:
                backward = int(rng.integers(2))
                clip = clips[int(rng.integers(len(clips)))]
                return dataclasses.replace(clip, backward=bool(backward)), DIRECTIONS[backward]

            drawn = [draw(self.support.pictures.pictures) for _ in range(shots)]
            query, truth = draw(self.without(self.queries.pictures.pictures, [clip for clip, _ in drawn]))
            shown = tuple(self.example(*each) for each in drawn)
            return Episode(shown, (self.query(query),), truth, DIRECTIONS)
