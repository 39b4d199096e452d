"""Pooled features of the frozen trunk, with which RICES retrieves the examples of a prompt.

RICES (Yang et al. 2021; paper, section 4.2): the examples are the support pictures most similar to the query, the most
similar last (`few_shot/nearest.py`).
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from flamingo_jax.few_shot.nearest import Pooled

TOGETHER = 32  # Pictures that the trunk encodes at a time.
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

    def encode_waiting():
        if waiting:
            # The last batch is padded, so that one program serves all.
            batch = np.stack(waiting + waiting[:1] * (TOGETHER - len(waiting)))
            rows.extend(_mean(features) for features in encode(batch)[: len(waiting)])
            waiting.clear()

    for frames in tqdm(pictures, total=number, unit=' pictures', desc='features for RICES', leave=False):
        if waiting and (frames.dtype != np.uint8 or frames.shape != waiting[0].shape):
            encode_waiting()
        if frames.dtype == np.uint8:
            waiting.append(frames)
            if len(waiting) == TOGETHER:
                encode_waiting()
        else:
            rows.append(_mean(frames))
    encode_waiting()
    pooled = np.stack(rows)
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def _mean(features: np.ndarray) -> np.ndarray:
    return features.astype(np.float32).mean(axis=(0, 1))
