"""VQA accuracy by GT-Vision-Lab/VQA from 2016 to 2021: annotators' answers lose punctuation alone, if they differ.

So an annotator's `two` never matches, as the prediction `two` is compared as `2`. `vqa_accuracy.py` lists the other
versions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flamingo_jax.evaluation.metrics.vqa_accuracy import Entry, normal, without_punctuation
from flamingo_jax.evaluation.metrics.vqa_accuracy_left_out_by_value import mean_accuracy_by_value


def score(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[Entry]]) -> tuple[float, dict[Any, float]]:
    """The mean accuracy, and that of each question; arguments and errors as in `vqa_accuracy_left_out_by_value`."""
    return mean_accuracy_by_value(predictions, references, _in_compared_form, strip=False)


def _in_compared_form(answer: str, given: Sequence[str]) -> tuple[str, list[str]]:
    return normal(answer), list(given) if len(set(given)) == 1 else [without_punctuation(other) for other in given]
