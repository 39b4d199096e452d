"""The score of a metric with its 95 % interval, and the difference of two models on the same queries.

Questions about one image are not independent, so that an image with its questions is one cluster, and a score is a
mean over clusters (a ratio of two sums). Its error comes from how clusters differ. A question about two images is in
two clusters: any two questions that share an image may err together, as in a regression on pairs (Fafchamps and Gubert
2007; Cameron, Gelbach and Miller 2011).

Shares and other scores between 0 and 1 get Wilson's interval (Wilson 1927), which is not 0 where all answers are right.
If answers share images or are partly right, it is Wilson's for the number of independent answers that would have the
same error (Korn and Graubard 1998). Other scores (CIDEr, ROC AUC, mWAP) get the interval of a mean. Both allow for few
clusters by Student's distribution. tests/evaluation/test_coverage.py shows by simulation how often they hold the truth.
"""

import collections
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.report import Score

LEVEL = 0.975  # Quantile of the upper end of a 95 % interval.
Z = 1.96  # The same of the normal distribution.
Clusters = Mapping[Hashable, tuple[str, ...]]  # Id -> its clusters, an image each; () is a cluster of its own.


def mean(each: Mapping[Hashable, float], clusters: Clusters) -> Score:
    """The mean of the scores of all ids, with the half-width of its interval."""
    marks = list(each.values())
    value = float(np.mean(marks))
    number, of_one = _number(each, clusters)
    if number == len(each) and of_one == 1 and set(marks) <= {0.0, 1.0}:
        return share([bool(mark) for mark in marks])
    error = _error(each, clusters)
    if 0 <= min(marks) and max(marks) <= 1:
        # As many answers as there are disjoint ones, if all score the same: their error is then unknown rather than 0.
        independent = value * (1 - value) / error**2 if error and 0 < value < 1 else number / of_one
        return Score(value, _wilson(value, independent, _quantile(number)))
    if number < 2:
        return Score(value, max(1.0, abs(value)))  # One cluster tells nothing about the others.
    return Score(value, _quantile(number) * error)


def difference(
    first: Mapping[Hashable, float], second: Mapping[Hashable, float], clusters: Clusters
) -> tuple[float, float]:
    """How much higher the second of two models scores on the same queries, with the half-width of its 95 % interval.

    A query that is hard for one is mostly hard for the other, so this interval is narrower than those of the scores.

    Args:
      first, second: id -> score, as a metric gives them.
      clusters: of each id.

    Raises:
      ValueError: the two have different ids, or none.
    """
    if not first or first.keys() != second.keys():
        some = sorted(first.keys() ^ second.keys(), key=str)[:1]
        raise UserError('The two models must have answered the same queries' + (f', but not {some[0]!r}.' * bool(some)))
    apart = {id: second[id] - first[id] for id in first}
    value, (number, of_one) = float(np.mean(list(apart.values()))), _number(apart, clusters)
    if number < 2:
        return value, max(1.0, abs(value))
    if error := _error(apart, clusters):
        return value, _quantile(number) * error
    return value, _wilson(0.0, number / of_one, _quantile(number))  # All are alike, which tells little of a few.


def ratio(part: Mapping[Hashable, float], whole: Mapping[Hashable, float], clusters: Clusters) -> Score:
    """The ratio of two means over the same ids, by the delta method (Cochran 1977, section 6.3).

    The mean of `whole` should be certainly above 0. ValueError if it is not above 0, or if the ids differ.
    """
    if part.keys() != whole.keys() or not whole or (mean := float(np.mean(list(whole.values())))) <= 0:
        raise UserError('A ratio needs two scores of the same queries, the second above 0.')
    value = float(np.mean(list(part.values()))) / mean
    _, half = difference({id: value * one for id, one in whole.items()}, part, clusters)
    return Score(value, half / mean)


def share(right: Sequence[bool]) -> Score:
    """The share of right answers, with its 95 % interval.

    Returns:
      The share, and its larger distance to an end of its Wilson interval.

    Raises:
      ValueError: no answers.
    """
    if not len(right):
        raise UserError('There are no answers to score.')
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


def _of(id: Hashable, clusters: Clusters) -> tuple[str, ...]:
    return clusters[id] or (f'\0{id}',)


def _number(ids: Iterable[Hashable], clusters: Clusters) -> tuple[int, float]:
    """The number of clusters, and the mean number of an id's."""
    every = [_of(id, clusters) for id in ids]
    return len({one for some in every for one in some}), sum(map(len, every)) / len(every)


def _error(each: Mapping[Hashable, float], clusters: Clusters) -> float:
    """Standard error of a mean over clusters, which is a ratio of two sums over clusters.

    Its square is the sum of the products of all residuals that share a cluster. The sums over clusters have a product
    once for each cluster that both are in, so those over equal sets of clusters are taken off as often as they are too
    many. That is exact for ids of one or two clusters, and too wide for more.
    """
    value = sum(each.values()) / len(each)
    sums: dict[str, float] = collections.defaultdict(float)
    of_sets: dict[tuple[str, ...], float] = collections.defaultdict(float)
    for id, score in each.items():
        some = _of(id, clusters)
        for one in some:
            sums[one] += score - value
        of_sets[tuple(sorted(some))] += score - value
    disjoint = sum(r**2 for r in of_sets.values())
    shared = sum(r**2 for r in sums.values()) - sum((len(some) - 1) * r**2 for some, r in of_sets.items())
    k = len(sums)
    return math.sqrt(k / max(k - 1, 1) * max(shared, disjoint)) / len(each)
