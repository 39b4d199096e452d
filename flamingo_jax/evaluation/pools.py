"""The pictures of an evaluation, opened once for all tasks, with their pooled frozen features."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation import rices
from flamingo_jax.evaluation.rices import Clip
from flamingo_jax.few_shot.episode import PictureSource, Pool
from flamingo_jax.few_shot.nearest import Pooled
from flamingo_jax.files import Path, as_path
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.images import to_frames
from flamingo_jax.inputs.sources.picture_set import PictureSet


class Pools:
    """Opens splits of prepared picture sets, and encodes picture files, for one model."""

    def __init__(self, model: Pretrained, config: ConfigDict, folder: str | Path = ''):
        """Opens nothing yet.

        Args:
          config: the evaluation's (`evaluation/config.py`).
          folder: where features are kept if the config names no folder; '' computes them each time.
        """
        self._model, self._config = model, config
        self._folder = config.pooled or folder
        self.episodes = config.episodes  # The most that a task asks.
        self.data = config.data  # Folder of a task's data set, unless the task has its own.
        self.pictures = model.pictures
        self._open, self._opened = functools.cache(self._read), []

    def open(self, split: str, data: str = '') -> Pool:
        """A split of a folder, or of the evaluation's. However a folder is written, its splits are the same.

        Its pictures are encoded by `encode`, or for the first task that compares them. ValueError if it has none.
        """
        return self._open(split, str(as_path(data or self.data)))

    def _read(self, split: str, data: str) -> Pool:
        c, model = self._config, self._model
        pictures = PictureSet(
            data,
            split,
            model.pictures,
            features=c.features,
            frames=c.frames,
            stills=c.stills,
        )
        if not pictures.pictures:
            raise UserError(
                f'The split {split!r} of {data} has no pictures of {c.frames} frames. Set config.frames to the number '
                'that its clips have, or to 1 for stills.'
            )

        def rows() -> Mapping[int, np.ndarray]:
            frames = (pictures.frames(picture) for picture in pictures.pictures)
            rows = rices.pool(model.encode, frames, len(pictures.pictures))
            return {picture.index: row for picture, row in zip(pictures.pictures, rows, strict=True)}

        pool = Pool(pictures, functools.cache(rows), f'{data}:{split}')
        self._opened.append(pool)
        return pool

    def encode(self) -> None:
        """Encodes the pictures of all open splits: once all tasks are checked, and before the first question."""
        for pool in self._opened:
            pool.read_rows()

    @functools.cached_property
    def clip(self) -> Clip:
        """The CLIP of the evaluation; ValueError if it names none. Other errors as for `rices.read_clip`."""
        if not self._config.clip:
            raise UserError(
                f'support {rices.BY_CLIP!r} needs a CLIP: --config.clip=BUNDLE, made by `{rices.REMEDY}` from the one '
                'that OpenFlamingo compares by (openai/clip-vit-large-patch14). To ask with random examples alone: '
                '--config.tasks.NAME.support=random.'
            )
        return rices.read_clip(self._config.clip)

    def pooled(self, images: Sequence[Any], source: PictureSource, by: Clip | None = None) -> Pooled:
        """Pooled frozen features of images of a source, a row each, kept in `config.pooled` or in the workdir.

        Args:
          source: has `identity(image)`, which changes with the image.
          by: whose features; None is the model's.

        PictureError names a file that cannot be read.
        """
        whose = self._model if by is None else by
        c, trunk = whose.config, whose.pictures.trunk
        rows = [np.zeros((0, c.vision.width), np.float32)]
        # In parts, so that an evaluation that is stopped does not begin anew.
        for begin in range(0, len(images), rices.PART):
            some = images[begin : begin + rices.PART]

            def compute(some=some) -> Pooled:
                frames = (to_frames(source.frames(image), c.image_size, c.fit) for image in some)
                return rices.pool(by.encode, frames, len(some))

            # Without its checksum, the trunk may have been trained further.
            if self._folder and trunk:
                about = [trunk, c.image_size, c.fit, str(by.model.dtype), [source.identity(one) for one in some]]
                rows.append(rices.kept(self._folder, about, compute))
            else:
                rows.append(compute())
        return np.concatenate(rows)


def of_styles(pool: Pool, styles: Sequence[str]) -> Pool:
    """The pictures of these styles, () is all. ValueError for an unknown style."""
    return Pool(pool.pictures.only(styles), pool.read_rows, pool.split)
