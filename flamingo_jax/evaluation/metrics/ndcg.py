"""NDCG of a ranking of answers (VisDial 1.0, visdialch/metrics.py), where several answers are more or less right.

Each of the k likeliest answers adds its relevance, divided by log2(its rank + 1). k is how many answers have a
relevance other than 0. The sum is divided by that of the best ranking.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.metrics import likelihoods


def score(predictions: Mapping[Any, Any], references: Mapping[Any, Any]) -> tuple[float, dict[Any, float]]:
    """The mean over dialogues, and the value of each, between 0 and 1.

    Args:
      predictions: id -> {answer: log-likelihood}, or the log-likelihoods in the order of the answers.
      references: id -> {answer: relevance}, or the relevances in the order of the answers.

    Raises:
      ValueError: the two have different answers, no answer is relevant, or a likelihood is not a number.
    """
    each = {}
    for id, reference in references.items():
        relevance = dict(reference) if isinstance(reference, Mapping) else dict(enumerate(reference))
        ranking = list(likelihoods(id, predictions[id]))
        if different := sorted(relevance.keys() ^ set(ranking), key=str):
            raise UserError(
                f'Prediction and reference of {id!r} must have the same answers, but one lacks {different[0]!r}.'
            )
        k = sum(value != 0 for value in relevance.values())
        if not k:
            raise UserError(f'No answer to {id!r} is relevant. Leave it out.')
        discounts = np.log2(np.arange(k) + 2)
        gain = np.array([relevance[answer] for answer in ranking[:k]]) / discounts
        best = np.array(sorted(relevance.values(), reverse=True)[:k]) / discounts
        each[id] = float(gain.sum() / best.sum())
    return float(np.mean(list(each.values()))), each
