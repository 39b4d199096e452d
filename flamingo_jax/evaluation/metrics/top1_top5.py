"""The mean of top-1 and top-5 accuracy, the measure of Kinetics (Smaira et al. 2020)."""

from collections.abc import Mapping
from typing import Any

from flamingo_jax.evaluation.metrics.accuracy import among_the_first


def score(predictions: Mapping[Any, Any], references: Mapping[Any, Any]) -> tuple[float, dict[Any, float]]:
    """The mean, and 1, .5 or 0 for each id; arguments and errors as in `accuracy`, without the class chosen."""
    return among_the_first(predictions, references, (1, 5))
