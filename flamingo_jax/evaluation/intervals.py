"""The score of a metric with its 95 % interval.

Shares of right answers get Wilson's interval (Wilson 1927), which is not 0 if all answers or none are right. If
answers share a picture or are partly right, the interval is that of a mean over clusters. For a score that is not a
mean (CIDEr, ROC AUC), it comes from clusters drawn with replacement (bootstrap; Efron 1979).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flamingo_jax.evaluation.metrics import Metric
from flamingo_jax.evaluation.report import Score

Z = 1.96  # Normal quantile of a 95 % interval.
DRAWS = 200  # Number of bootstrap samples.


def scored(
    metric: Metric, predictions: Mapping[str, Any], references: Mapping[str, Any], groups: Mapping[str, str]
) -> tuple[Score, dict[str, float]]:
    """The score of a set with the half-width of its interval, and the score of each id.

    Args:
      metric, predictions, references: as in `metrics/`.
      groups: id -> its group, whose ids are drawn together. '' is a group of its own.
    """
    value, each = metric(predictions, references)
    clusters: dict[str, list[str]] = {}
    for id in references:
        clusters.setdefault(groups[id] or f'\0{id}', []).append(id)
    alone = len(clusters) == len(each)
    if not math.isclose(value, float(np.mean(list(each.values()))), rel_tol=1e-9, abs_tol=1e-12):
        return Score(value, _bootstrap(metric, predictions, references, list(clusters.values()), value)), each
    if alone and set(each.values()) <= {0.0, 1.0}:
        return share([bool(mark) for mark in each.values()]), each
    return Score(value, _of_clusters([[each[id] for id in ids] for ids in clusters.values()], value)), each


def share(right: Sequence[bool]) -> Score:
    """The share of right answers, with its 95 % interval.

    Returns:
      The share, and its larger distance to an end of its Wilson interval.

    Raises:
      ValueError: no answers.
    """
    n = len(right)
    if not n:
        raise ValueError('There are no answers to score.')
    p = sum(right) / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return Score(p, abs(centre - p) + half)


def _of_clusters(clusters: Sequence[Sequence[float]], mean: float) -> float:
    """Half-width of the interval of a mean over clusters, which is a ratio of two sums over clusters."""
    k = len(clusters)
    if k < 2:
        return 0.0
    residuals = [sum(cluster) - mean * len(cluster) for cluster in clusters]
    total = sum(map(len, clusters))
    return Z * math.sqrt(k / (k - 1) * sum(r**2 for r in residuals)) / total


def _bootstrap(metric: Metric, predictions, references, clusters: Sequence[Sequence[str]], value: float) -> float:
    rng, values = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = [id for i in rng.integers(len(clusters), size=len(clusters)) for id in clusters[i]]
        # An id that is drawn twice counts twice.
        again = {f'{id}\0{i}': id for i, id in enumerate(drawn)}
        try:
            one, _ = metric(
                {k: predictions[id] for k, id in again.items()}, {k: references[id] for k, id in again.items()}
            )
        except ValueError:  # ROC AUC of a sample with one class only.
            continue
        values.append(one)
    if not values:
        return 0.0
    low, high = np.quantile(values, (0.025, 0.975))
    return float(max(value - low, high - value, 0.0))
