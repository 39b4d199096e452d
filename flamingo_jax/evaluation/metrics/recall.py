"""Recall at k: whether one of the first k that were found is right (retrieval; paper, table 9)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.metrics import refuse_without_references


def score(
    predictions: Mapping[Any, Sequence[str]], references: Mapping[Any, Sequence[str]]
) -> tuple[float, dict[Any, float]]:
    """The share of queries for which a right one was found.

    Args:
      predictions: id -> what was found, k of the candidates.
      references: id -> all that are right.

    Raises:
      ValueError: a query has no reference, or a text where there should be a sequence.
    """
    refuse_without_references(references)
    each = {}
    for id, right in references.items():
        if isinstance(predictions[id], str):
            raise UserError(f'The prediction for {id!r} is {predictions[id]!r}. It must be a sequence of candidates.')
        each[id] = float(bool(set(predictions[id]) & set(right)))
    return float(np.mean(list(each.values()))), each
