"""The pictures of an evaluation, opened once whatever the number of tasks, with their pooled frozen features."""

import functools
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from flamingo_jax.evaluation import rices
from flamingo_jax.few_shot.episode import Pool
from flamingo_jax.few_shot.nearest import Pooled
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.images import to_frames
from flamingo_jax.inputs.sources.picture_set import PictureSet


class Pools:
    """Opens splits of prepared picture sets, and encodes pictures in files, as one model sees them."""

    def __init__(self, model: Pretrained, config: ConfigDict):
        """config: of the evaluation (`evaluation/config.py`)."""
        self._model, self._config = model, config
        self.data = config.data  # Where a task's data set is, unless it says otherwise.
        self.open = functools.cache(self._open)

    def _open(self, split: str, data: str = '') -> Pool:
        c, model = self._config, self._model
        pictures = PictureSet(
            data or c.data,
            split,
            model.pictures,
            features=c.features,
            frames=c.frames,
            stills=c.stills,
        )
        frames = (pictures.frames(picture) for picture in pictures.pictures)
        rows = rices.pool(model.encode, frames, len(pictures.pictures))
        by_index = {picture.index: row for picture, row in zip(pictures.pictures, rows, strict=True)}
        return Pool(pictures, by_index, f'{data}:{split}')

    def pooled(self, pictures: Sequence[Any]) -> Pooled:
        """Pooled frozen features of pictures in files, a row for each; PictureError names one that cannot be read."""
        c = self._model.config
        frames = (to_frames(picture, c.image_size, c.fit) for picture in pictures)
        return rices.pool(self._model.encode, frames, len(pictures))


def of_styles(pool: Pool, styles: Sequence[str]) -> Pool:
    """The pictures of these styles, () of all; ValueError for a style that there is not."""
    return Pool(pool.pictures.only(styles), pool.rows, pool.split)
