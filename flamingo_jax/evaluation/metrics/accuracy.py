"""Top-1 accuracy (ImageNet; STAR): how often the likeliest class is the right one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.metrics import likelihoods


def score(predictions: Mapping[Any, Any], references: Mapping[Any, Any]) -> tuple[float, dict[Any, float]]:
    """The accuracy, and 1 or 0 for each id.

    Args:
      predictions: id -> {class: log-likelihood}, or the log-likelihoods of the classes 0, 1, ..., or the class chosen.
        Of equally likely classes, the first by name is chosen.
      references: id -> the right class, or a sequence with it alone.

    Raises:
      ValueError: the right class is not among the candidates, or a likelihood is not a number.
    """
    return among_the_first(predictions, references, (1,))


def among_the_first(
    predictions: Mapping[Any, Any], references: Mapping[Any, Any], numbers: tuple[int, ...]
) -> tuple[float, dict[Any, float]]:
    """The mean over `numbers` of how often the right class is among so many likeliest ones; errors as in `score`."""
    each = {}
    for id, right in references.items():
        if isinstance(right, tuple | list):
            (right,) = right
        if isinstance(predictions[id], str) and numbers == (1,):
            each[id] = float(predictions[id] == right)
            continue
        ranking = list(likelihoods(id, predictions[id]))
        if right not in ranking:
            raise UserError(
                f'The right class of {id!r} is {right!r}, which is none of the {len(ranking)} candidates, such as '
                f'{ranking[0]!r}.'
            )
        place = ranking.index(right)
        each[id] = float(np.mean([place < number for number in numbers]))
    return float(np.mean(list(each.values()))), each
