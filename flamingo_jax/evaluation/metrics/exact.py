"""Exact match with any of the references, ignoring case, outer white space and a final full stop."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flamingo_jax.evaluation.metrics import texts


def score(predictions: Mapping[Any, Any], references: Mapping[Any, Sequence[str]]) -> tuple[float, dict[Any, float]]:
    """The share of answers that match; each reference is a sequence of right answers.

    ValueError if a prediction is not a text.
    """
    answers = zip(references, texts(predictions, references), strict=True)
    each = {id: float(any(same_answer(answer, truth) for truth in references[id])) for id, answer in answers}
    return float(np.mean(list(each.values()))), each


def same_answer(answer: str, truth: str) -> bool:
    """Whether two answers match."""
    return normal(answer) == normal(truth)


def normal(answer: str) -> str:
    """An answer in the form that is compared."""
    return answer.strip().rstrip('.。|।').rstrip().casefold()
