"""VQA accuracy by GT-Vision-Lab/VQA since March 2021: nothing is normalised if all annotators agree.

`vqa_accuracy.py` lists the other versions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flamingo_jax.evaluation.metrics.vqa_accuracy import Entry, normal
from flamingo_jax.evaluation.metrics.vqa_accuracy_left_out_by_value import mean_accuracy_by_value


def score(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[Entry]]) -> tuple[float, dict[Any, float]]:
    """The mean accuracy, and that of each question; arguments and errors as in `vqa_accuracy_left_out_by_value`."""
    return mean_accuracy_by_value(predictions, references, _in_compared_form)


def _in_compared_form(answer: str, given: Sequence[str]) -> tuple[str, list[str]]:
    if len(set(given)) == 1:
        return answer, list(given)
    return normal(answer), [normal(other) for other in given]
