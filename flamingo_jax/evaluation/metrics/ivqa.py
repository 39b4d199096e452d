"""Accuracy of iVQA (Yang et al. 2021): 1 if at least 2 of the 5 annotators gave the answer, .5 if one did."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flamingo_jax.evaluation.metrics import refuse_without_references, texts


def score(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[str]]) -> tuple[float, dict[Any, float]]:
    """The mean, and the accuracy of each question. Only answers that are spelled alike are equal, as in just-ask.

    Args:
      predictions: id -> an answer.
      references: id -> the answers of the annotators.

    Raises:
      ValueError: a prediction is not a text, or a question has no answers.
    """
    refuse_without_references(references)
    each = {
        id: min(list(references[id]).count(answer) / 2, 1.0)
        for id, answer in zip(references, texts(predictions, references), strict=True)
    }
    return float(np.mean(list(each.values()))), each
