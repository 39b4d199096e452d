"""Exact match with any of the references, ignoring case, outer white space and a final full stop."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def score(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[str]]) -> tuple[float, dict[Any, float]]:
    """The share of answers that match; each reference is a sequence of right answers."""
    each = {
        id: float(any(same_answer(predictions[id], reference) for reference in references[id])) for id in references
    }
    return float(np.mean(list(each.values()))), each


def same_answer(answer: str, truth: str) -> bool:
    """Whether two answers match."""
    return normal(answer) == normal(truth)


def normal(answer: str) -> str:
    """An answer in the form that is compared."""
    return answer.strip().rstrip('.。|।').casefold()
