"""The images of an evaluation, opened once for all tasks, with their pooled frozen features."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation import rices
from flamingo_jax.evaluation.rices import Clip
from flamingo_jax.files import Path, as_path
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.images import to_frames
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.tasks.episode import ImageSource, Pool
from flamingo_jax.tasks.nearest import Pooled


class Pools:
    """Opens splits of prepared image sets, and encodes image files, for one model."""

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
        self.image_format = model.image_format
        self._open, self._opened = functools.cache(self._read), []

    def open(self, split: str, data: str = '') -> Pool:
        """A split of a folder, or of the evaluation's. However a folder is written, its splits are the same.

        Its images are encoded by `encode`, or for the first task that compares them. ValueError if it has none.
        """
        return self._open(split, str(as_path(data or self.data)))

    def _read(self, split: str, data: str) -> Pool:
        c, model = self._config, self._model
        images = ImageSet(
            data,
            split,
            model.image_format,
            features=c.features,
            frames=c.frames,
            stills=c.stills,
        )
        if not images.images:
            raise UserError(
                f'The split {split!r} of {data} has no images of {c.frames} frames. Set config.frames to the number '
                'that its clips have, or to 1 for stills.'
            )

        def rows() -> Mapping[int, np.ndarray]:
            frames = (images.frames(image) for image in images.images)
            rows = rices.pool(model.encode, frames, len(images.images))
            return {image.index: row for image, row in zip(images.images, rows, strict=True)}

        pool = Pool(images, functools.cache(rows), f'{data}:{split}')
        self._opened.append(pool)
        return pool

    def encode(self) -> None:
        """Encodes the images of all open splits: once all tasks are checked, and before the first question."""
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

    def pooled(self, images: Sequence[Any], source: ImageSource, by: Clip | None = None) -> Pooled:
        """Pooled frozen features of images of a source, a row each, kept in `config.pooled` or in the workdir.

        Args:
          source: has `identity(image)`, which changes with the image.
          by: whose features; None is the model's.

        ImageError names a file that cannot be read.
        """
        whose = self._model if by is None else by
        c, trunk = whose.config, whose.image_format.trunk
        rows = [np.zeros((0, c.vision.width), np.float32)]
        # In parts, so that an evaluation that is stopped does not begin anew.
        for begin in range(0, len(images), rices.PART):
            some = images[begin : begin + rices.PART]

            def compute(some=some) -> Pooled:
                frames = (to_frames(source.frames(image), c.image_size, c.fit) for image in some)
                return rices.pool(whose.encode, frames, len(some))

            # Without its checksum, the trunk may have been trained further.
            if self._folder and trunk:
                about = [trunk, c.image_size, c.fit, str(whose.model.dtype), [source.identity(one) for one in some]]
                rows.append(rices.kept(self._folder, about, compute))
            else:
                rows.append(compute())
        return np.concatenate(rows)


def of_styles(pool: Pool, styles: Sequence[str]) -> Pool:
    """The images of these styles, () is all. ValueError for an unknown style."""
    return Pool(pool.images.only(styles), pool.read_rows, pool.split)
