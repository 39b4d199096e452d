"""Retrieval by the frozen trunk: the support of RICES prompts, and the baselines without a language model.

RICES (Yang et al. 2021; paper section 4.2): the examples of a prompt are the support pictures most like the query, the
most like last.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from flamingo_jax.inputs.images import Frames
from flamingo_jax.inputs.sources.picture_set import PictureSet

Pooled = Float[np.ndarray, 'n d_v']


def pool(encode: Callable[[Frames], Frames], pictures: PictureSet) -> Pooled:
    """Standardised frozen features, averaged over space and time, of length 1: their products are cosines.

    `encode` makes features of pixels; it is not called where the picture set holds features.
    """
    rows = []
    for picture in tqdm(pictures.pictures, unit=' pictures', desc='features for RICES', leave=False):
        frames = pictures.frames(picture)
        if frames.dtype == np.uint8:  # Pixels.
            frames = encode(frames)
        rows.append(frames.astype(np.float32).mean(axis=(0, 1)))
    rows = np.stack(rows)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def most_similar(query: Float[np.ndarray, 'd_v'], support: Pooled, n: int) -> list[int]:
    """The n support rows most like the query, the most like last."""
    return [int(i) for i in np.argsort(support @ query, kind='stable')[len(support) - n :]]


def nearest_neighbour(query: Float[np.ndarray, 'd_v'], support: Pooled, labels: Sequence[str]) -> str:
    """The label of the support picture most like the query."""
    return labels[int(np.argmax(support @ query))]


def nearest_centroid(query: Float[np.ndarray, 'd_v'], support: Pooled, labels: Sequence[str]) -> str:
    """The label whose support pictures are most like the query on average."""
    order = sorted(range(len(labels)), key=labels.__getitem__)
    classes, begins = np.unique([labels[i] for i in order], return_index=True)
    sums = np.add.reduceat(support[order], begins, axis=0)  # np.add.at takes half as long again.
    centroids = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return str(classes[int(np.argmax(centroids @ query))])


def nearest(query: Float[np.ndarray, 'd_v'], support: Pooled, labels: Sequence[str]) -> tuple[str, str]:
    """What the nearest neighbour and the nearest centroid answer; '' without support."""
    if not len(labels):
        return '', ''
    return nearest_neighbour(query, support, labels), nearest_centroid(query, support, labels)
