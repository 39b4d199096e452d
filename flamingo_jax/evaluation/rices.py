"""Pooled features of the frozen trunk, with which RICES retrieves the examples of a prompt.

RICES (Yang et al. 2021; paper, appendix A.2): the examples are the support pictures most similar to the query, the most
similar last (`few_shot/nearest.py`).
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from flamingo_jax.few_shot.nearest import Pooled, pooled
from flamingo_jax.files import as_path, write_whole

TOGETHER = 32  # Frames that the trunk encodes at a time, or one film of more.
Encode = Callable[[UInt8[np.ndarray, 'b t height width 3']], Float[np.ndarray, 'b t s d_v']]


def pool(encode: Encode, pictures: Iterator[np.ndarray], number: int) -> Pooled:
    """Standardised frozen features of pictures, averaged over space and time, of length 1.

    Args:
      encode: pixels of a batch -> features; not called for pictures that are features already.
      pictures: uint8 [t height width 3], or features [t s d_v].
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

    for frames in tqdm(pictures, total=number, unit=' pictures', desc='features for RICES', leave=False):
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


def kept(folder: str, about: Any, compute: Callable[[], Pooled]) -> Pooled:
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
