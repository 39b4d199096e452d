"""Area under the ROC curve (HatefulMemes; Kiela et al. 2020): how often a `yes` has a higher score than a `no`.

Equal scores count one half, as in scikit-learn's roc_auc_score.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.metrics import likelihoods

POSITIVE, NEGATIVE = ('yes', 1), ('no', 0)


def score(predictions: Mapping[Any, Any], references: Mapping[Any, str | int]) -> tuple[float, dict[Any, float]]:
    """The area, and for each id the area plus its influence on it (DeLong et al. 1988).

    Args:
      predictions: id -> {'yes': log-likelihood, 'no': log-likelihood}, or a number that is higher for a likelier yes.
      references: id -> 'yes' or 'no', or 1 or 0.

    Raises:
      ValueError: only one of the two answers is right anywhere, a reference is another, or a likelihood is missing or
        not a number.
    """
    ids = list(references)
    for id in ids:
        if references[id] not in POSITIVE + NEGATIVE:
            raise UserError(f"The reference of {id!r} is {references[id]!r}. It must be 'yes' or 'no', or 1 or 0.")
    positive = np.array([references[id] in POSITIVE for id in ids])
    if positive.all() or not positive.any():
        raise UserError(f'ROC AUC needs both answers, but all {len(ids)} right answers are {references[ids[0]]!r}.')
    scores = np.array([_score(id, predictions[id]) for id in ids])
    # For each id, the share of those of the other answer that it is on the right side of.
    beaten = np.empty(len(ids))
    for mine, sign in ((positive, 1), (~positive, -1)):
        others = np.sort(sign * scores[~mine])
        own = sign * scores[mine]
        below = np.searchsorted(others, own, 'left') + np.searchsorted(others, own, 'right')
        beaten[mine] = below / 2 / len(others)
    area = float(beaten[positive].mean())
    number = np.where(positive, positive.sum(), (~positive).sum())
    each = area + (beaten - area) * len(ids) / number
    return area, dict(zip(ids, each.tolist(), strict=True))


def _score(id: str, prediction: Any) -> float:
    if not isinstance(prediction, Mapping):
        return float(likelihoods(id, [prediction])[0])
    likelihood = likelihoods(id, prediction)
    if set(likelihood) != {'yes', 'no'}:
        raise UserError(
            f"The prediction for {id!r} has the candidates {sorted(likelihood)}. They must be 'yes' and 'no'."
        )
    # Both can be minus infinity.
    return 0.0 if likelihood['yes'] == likelihood['no'] else likelihood['yes'] - likelihood['no']
