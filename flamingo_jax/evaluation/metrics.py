"""Scores of episodes, each with the half-width of its 95 % interval."""

import math
from collections.abc import Sequence

from flamingo_jax.evaluation.report import Score

Z = 1.96  # Normal quantile of a 95 % interval.


def share(right: Sequence[bool]) -> Score:
    """The share of episodes that were right, with its 95 % interval.

    Returns:
      The share, and the larger distance from it to an end of its Wilson interval (Wilson 1927), which is not 0 where
      every episode was right, or none.

    Raises:
      ValueError: no episodes.
    """
    n = len(right)
    if not n:
        raise ValueError('No episodes to score.')
    p = sum(right) / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return Score(p, abs(centre - p) + half)


def same_answer(answer: str, truth: str) -> bool:
    """Exact match of open-ended answers, but for case, outer white space and a final full stop."""
    return normal(answer) == normal(truth)


def normal(answer: str) -> str:
    """An answer as it is compared."""
    return answer.strip().rstrip('.。|।').casefold()
