"""Direction: clips that play forward or backward."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.image_set import ImageSet, LabelledImage
from flamingo_jax.tasks import game
from flamingo_jax.tasks.episode import Episode, Pool

DIRECTIONS = ('forward', 'backward')


def _only_clips(images: ImageSet) -> None:
    if images.blank.shape[0] < 2:
        raise UserError('only clips have a direction. Set `frames` to more than 1.')


class Direction(game.Game):
    """How a clip plays."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Clips with their direction."""

        def open(self, images: ImageSet, shots: int) -> None:
            """Clips only."""
            super().open(images, shots)
            _only_clips(images)

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """Any clips; half of them play backward."""
            chunks = []
            for i in rng.choice(len(self.images.images), self.shots):
                backward = rng.random() < 0.5
                clip = dataclasses.replace(self.images.images[i], backward=bool(backward))
                label = f' {DIRECTIONS[int(backward)]}'
                chunks.append(Chunk(self.seen(rng, clip), (self.prompt, label), (0.0, 1.0)))
            return chunks

    @dataclasses.dataclass
    class Episodes(game.Episodes):
        """Whether a clip plays forward or backward."""

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Takes clips only. There must be more of them than examples: the query is drawn last, from the rest."""
            super().open(queries, support, shots, answers)
            _only_clips(queries.images)
            clips, examples = queries.images.images, support.images.images
            shown = {clip.index for clip in examples} if self.one_split else set()
            if all(clip.index in shown for clip in clips):
                self.require(len(clips) - 1, 'clips')
            self.require(len(examples), 'clips')

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` clips with their direction, then another."""

            def draw(clips: Sequence[LabelledImage]) -> tuple[LabelledImage, str]:
                backward = int(rng.integers(2))
                clip = clips[int(rng.integers(len(clips)))]
                return dataclasses.replace(clip, backward=bool(backward)), DIRECTIONS[backward]

            drawn = [draw(self.support.images.images) for _ in range(shots)]
            query, truth = draw(self.without(self.queries.images.images, [clip for clip, _ in drawn]))
            shown = tuple(self.example(*each) for each in drawn)
            return Episode(shown, (self.query(query),), truth, DIRECTIONS)
