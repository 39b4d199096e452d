"""Few-shot sequences as a data set: drawn anew for every row from a prepared picture set, without end."""

import dataclasses

import numpy as np

from flamingo_jax.few_shot.sequences import FewShotConfig, Sequences
from flamingo_jax.inputs.images import PictureFormat
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.picture_set import PictureSet
from flamingo_jax.inputs.sources.source import ENDLESS, Opened, Source


@dataclasses.dataclass(frozen=True)
class FewShot(Source):
    """The pictures of some styles of a picture set, and the games that are played with them."""

    styles: tuple[str, ...] = ()  # () is all.
    few_shot: FewShotConfig = FewShotConfig()

    def open(self, pictures: PictureFormat) -> Opened:
        """Opens the picture set; errors as `PictureSet` and `Sequences`."""
        return _Opened(self, pictures)


class _Opened:
    def __init__(self, source: FewShot, pictures: PictureFormat):
        of = PictureSet(
            source.path,
            source.split,
            pictures,
            styles=source.styles,
            features=source.features,
            frames=source.frames,
        )
        self._sequences = Sequences(of, source.few_shot)

    def __len__(self) -> int:
        return ENDLESS

    def document(self, index: int, rng: np.random.Generator) -> list[Chunk]:
        """One drawn by `rng`."""
        return self._sequences(rng)
