"""Baselines of the frozen trunk alone: the images most similar to a query, and their labels."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Pooled = Float[np.ndarray, 'n d_v']  # Pooled features of length 1: products are cosines.


def pooled(features: Float[np.ndarray, 't s d_v']) -> Float[np.ndarray, 'd_v']:
    """An image's features, averaged over space and time, of length 1."""
    mean = features.astype(np.float32).mean(axis=(0, 1))
    return mean / np.linalg.norm(mean)


def most_similar(query: Float[np.ndarray, 'd_v'], support: Pooled, n: int) -> list[int]:
    """The n support rows most similar to the query, or all of fewer, the most similar last."""
    return [int(i) for i in np.argsort(support @ query, kind='stable')[max(len(support) - n, 0) :]]


def nearest_neighbour(query: Float[np.ndarray, 'd_v'], support: Pooled, labels: Sequence[str]) -> str:
    """The label of the support image most similar to the query."""
    return labels[int(np.argmax(support @ query))]


def centroids(support: Pooled, labels: Sequence[str]) -> tuple[np.ndarray, Float[np.ndarray, 'classes d_v']]:
    """The labels, sorted, and the mean of each one's support images, of length 1."""
    order = sorted(range(len(labels)), key=labels.__getitem__)
    classes, begins = np.unique([labels[i] for i in order], return_index=True)
    sums = np.add.reduceat(support[order], begins, axis=0)  # np.add.at takes 1.5 times as long.
    return classes, sums / np.linalg.norm(sums, axis=1, keepdims=True)


def nearest_centroid(query: Float[np.ndarray, 'd_v'], support: Pooled, labels: Sequence[str]) -> str:
    """The label whose support images are most similar to the query on average."""
    classes, means = centroids(support, labels)
    return str(classes[int(np.argmax(means @ query))])


def nearest(query: Float[np.ndarray, 'd_v'], support: Pooled, labels: Sequence[str]) -> tuple[str, str]:
    """The answers of the nearest neighbour and of the nearest centroid; '' without support."""
    if not len(labels):
        return '', ''
    return nearest_neighbour(query, support, labels), nearest_centroid(query, support, labels)
