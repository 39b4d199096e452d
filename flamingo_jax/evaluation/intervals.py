"""The score of a metric with its 95 % interval, and the difference of two models on the same queries.

Questions about one picture are not independent, so that a picture with its questions is one cluster, and a score is a
mean over clusters (a ratio of two sums). Its error comes from how clusters differ.

Shares and other scores between 0 and 1 get Wilson's interval (Wilson 1927), which is not 0 where all answers are right.
If answers share pictures or are partly right, it is Wilson's for the number of independent answers that would have the
same error (Korn and Graubard 1998). Other scores (CIDEr, ROC AUC, mWAP) get the interval of a mean. Both allow for few
clusters by Student's distribution. tests/evaluation/test_coverage.py shows by simulation how often they hold the truth.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from flamingo_jax.evaluation.metrics import Metric
from flamingo_jax.evaluation.report import Score

LEVEL = 0.975  # Quantile of the upper end of a 95 % interval.
Z = 1.96  # The same of the normal distribution.
DRAWS = 200  # Number of bootstrap samples.


def scored(
    metric: Metric, predictions: Mapping[str, Any], references: Mapping[str, Any], groups: Mapping[str, str]
) -> tuple[Score, dict[str, float]]:
    """The score of a set with the half-width of its interval, and the score of each id.

    Args:
      metric, predictions, references: as in `metrics/`.
      groups: id -> its cluster, whose ids belong together. '' is a cluster of its own.
    """
    value, each = metric(predictions, references)
    clusters = list(_clusters(references, groups).values())
    marks = list(each.values())
    if not is_mean(value, each):
        return Score(value, _bootstrap(metric, predictions, references, clusters=clusters, value=value)), each
    if len(clusters) == len(each) and set(marks) <= {0.0, 1.0}:
        return share([bool(mark) for mark in marks]), each
    error = _error([[each[id] for id in ids] for ids in clusters])
    if 0 <= min(marks) and max(marks) <= 1:
        # As many clusters as there are, if all score the same: their error is then unknown rather than 0.
        number = value * (1 - value) / error**2 if error and 0 < value < 1 else len(clusters)
        return Score(value, _wilson(value, number, _quantile(len(clusters)))), each
    if len(clusters) < 2:
        return Score(value, max(1.0, abs(value))), each  # One cluster tells nothing about the others.
    return Score(value, _quantile(len(clusters)) * error), each


def difference(
    first: Mapping[str, float], second: Mapping[str, float], groups: Mapping[str, str]
) -> tuple[float, float]:
    """How much higher the second of two models scores on the same queries, with the half-width of its 95 % interval.

    A query that is hard for one is mostly hard for the other, so this interval is narrower than those of the scores.

    Args:
      first, second: id -> score, as a metric gives them.
      groups: as in `scored`.

    Raises:
      ValueError: the two have different ids, or none.
    """
    if not first or first.keys() != second.keys():
        some = sorted(first.keys() ^ second.keys(), key=str)[:1]
        raise ValueError(
            'The two models must have answered the same queries' + (f', but not {some[0]!r}.' * bool(some))
        )
    apart = {id: second[id] - first[id] for id in first}
    clusters = [[apart[id] for id in ids] for ids in _clusters(first, groups).values()]
    mean = float(np.mean(list(apart.values())))
    if len(clusters) < 2:
        return mean, max(1.0, abs(mean))
    return mean, _quantile(len(clusters)) * _error(clusters)


def is_mean(value: float, each: Mapping[str, float]) -> bool:
    """Whether the score of a set is the mean of those of its ids."""
    return math.isclose(value, float(np.mean(list(each.values()))), rel_tol=1e-9, abs_tol=1e-12)


def share(right: Sequence[bool]) -> Score:
    """The share of right answers, with its 95 % interval.

    Returns:
      The share, and its larger distance to an end of its Wilson interval.

    Raises:
      ValueError: no answers.
    """
    if not len(right):
        raise ValueError('There are no answers to score.')
    p = sum(right) / len(right)
    return Score(p, _wilson(p, len(right), Z))


def _wilson(p: float, n: int | float, z: float) -> float:
    """The larger distance of p to an end of Wilson's interval for n independent answers."""
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return abs(centre - p) + half


def _quantile(clusters: int) -> float:
    """Student's quantile for a mean over so many clusters."""
    return float(stdtrit(max(clusters - 1, 1), LEVEL))


def _clusters(ids: Mapping[str, Any], groups: Mapping[str, str]) -> dict[str, list[str]]:
    clusters: dict[str, list[str]] = {}
    for id in ids:
        clusters.setdefault(groups[id] or f'\0{id}', []).append(id)
    return clusters


def _error(clusters: Sequence[Sequence[float]]) -> float:
    """Standard error of a mean over clusters, which is a ratio of two sums over clusters."""
    k, total = len(clusters), sum(map(len, clusters))
    mean = sum(map(sum, clusters)) / total
    residuals = [sum(cluster) - mean * len(cluster) for cluster in clusters]
    return math.sqrt(k / max(k - 1, 1) * sum(r**2 for r in residuals)) / total


def _bootstrap(metric: Metric, predictions, references, clusters: Sequence[Sequence[str]], value: float) -> float:
    """For a metric whose score is not the mean of its ids' (none in `metrics/`): clusters drawn with replacement."""
    rng, values = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = [id for i in rng.integers(len(clusters), size=len(clusters)) for id in clusters[i]]
        # An id that is drawn twice counts twice.
        again = {f'{id}\0{i}': id for i, id in enumerate(drawn)}
        try:
            one, _ = metric(
                {k: predictions[id] for k, id in again.items()}, {k: references[id] for k, id in again.items()}
            )
        except ValueError:  # A sample that the metric refuses.
            continue
        values.append(one)
    if not values:
        return 0.0
    low, high = np.quantile(values, (0.025, 0.975))
    return float(max(value - low, high - value, 0.0))
