"""What RICES compares to find the examples of a prompt (Yang et al. 2021; paper, appendix A.2).

The examples are the support images most similar to the query, the most similar last. There are two kinds of support:

    rices           by the features of the model's own frozen trunk, averaged over space and time, among the items that
                    were drawn from the support split (`support_size`), as in the paper
    rices by clip   by the embedding of a CLIP (`config.clip`), among the whole support split, as in OpenFlamingo
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from flamingo_jax.checkpoints import bundle
from flamingo_jax.errors import UserError
from flamingo_jax.files import Path, as_path, write_whole
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.model.vision.clip_embedding import ClipEmbeddingConfig
from flamingo_jax.tasks.nearest import Pooled, pooled

RICES, BY_CLIP = 'rices', 'rices by clip'
REMEDY = 'python -m flamingo_jax.convert clip_embedding --source=FOLDER_OF_A_CLIP --out=BUNDLE'
PART = 4096  # Rows that are kept in one file.
TOGETHER = 32  # Frames that the trunk encodes at a time, or one video of more.
Encode = Callable[[UInt8[np.ndarray, 'b t height width 3']], Float[np.ndarray, 'b t s d_v']]


def pool(encode: Encode, images: Iterator[np.ndarray], number: int) -> Pooled:
    """Standardised frozen features of images, averaged over space and time, of length 1.

    Args:
      encode: pixels of a batch -> features; not called for images that are features already.
      images: uint8 [t height width 3], or features [t s d_v].
      number: how many there are.
    """
    rows: list[np.ndarray] = []
    waiting: list[np.ndarray] = []  # Pixels of one shape.

    def together(frames: np.ndarray) -> int:
        return max(1, TOGETHER // len(frames))

    def encode_waiting():
        if waiting:
            # The last batch is padded, so that one program serves all.
            batch = np.stack(waiting + waiting[:1] * (together(waiting[0]) - len(waiting)))
            rows.extend(map(pooled, encode(batch)[: len(waiting)]))
            waiting.clear()

    for frames in tqdm(images, total=number, unit=' images', desc='features for RICES', leave=False):
        if waiting and (frames.dtype != np.uint8 or frames.shape != waiting[0].shape):
            encode_waiting()
        if frames.dtype == np.uint8:
            waiting.append(frames)
            if len(waiting) == together(frames):
                encode_waiting()
        else:
            rows.append(pooled(frames))
    encode_waiting()
    return np.stack(rows)


def kept(folder: str | Path, about: Any, compute: Callable[[], Pooled]) -> Pooled:
    """The rows in `folder` that were computed from the same, or else those of `compute`, which are then kept there.

    about: all that the rows depend on, as JSON.
    """
    file = as_path(folder) / f'{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]}.npy'
    if file.is_file():
        return np.load(io.BytesIO(file.read_bytes()))
    rows = compute()
    if jax.process_index() == 0:
        file.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.save(content, rows)
        write_whole(file, content.getvalue())
    return rows


@dataclasses.dataclass(frozen=True)
class Clip:
    """A CLIP with its projection, in float32 on one device."""

    model: Flamingo
    params: Params
    checksum: str

    @property
    def config(self) -> FlamingoConfig:
        """Its config."""
        return self.model.config

    @property
    def image_format(self) -> ImageFormat:
        """How it takes its images."""
        return ImageFormat.of(self.config, self.checksum)

    def encode(self, frames: UInt8[np.ndarray, 'b t height width 3']) -> Float[np.ndarray, 'b t 1 d_v']:
        """The embeddings of several images, or of videos of one length; not of length 1."""
        return np.asarray(_embeddings(self.model, self.params, frames[:, None]))[:, 0]


_embeddings = jax.jit(Flamingo.features, static_argnums=0)


def read_clip(path: str | Path) -> Clip:
    """The CLIP of a bundle that `convert clip_embedding` wrote.

    Raises:
      FileNotFoundError, ValueError: there is no bundle, or it holds something else.
    """
    found = bundle.read(path)
    if not isinstance(found.config.vision, ClipEmbeddingConfig):
        raise UserError(f'{path} holds no CLIP with its projection. Make one: {REMEDY}.')
    return Clip(Flamingo(found.config), {'vision': found.params('vision', jnp.float32)}, found.checksums['vision'])
