"""mWAP of RareAct (Miech et al. 2020, compute_score.py): mean average precision over actions, weighted by video.

For each action, a verb and a noun, all clips are ranked by how likely they show it. Clips of one video in one group
share a weight of 1. The groups of an action are its positives, hard negatives and negatives:

    The annotation of a clip with its own action says which: 1 is positive, 0 negative, 2 to 4 hard negative.
    The positives of any other action are hard negatives if it shares the verb or the noun, and negatives otherwise.

A clip that is a negative twice, once by annotation and once as the positive of another action, counts twice, as in the
original.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.metrics import likelihoods


def score(
    predictions: Mapping[Any, Any], references: Mapping[Any, Mapping[str, Any]]
) -> tuple[float, dict[Any, float]]:
    """The mean over actions with a positive clip, and for each clip the mean plus its influence on it.

    Args:
      predictions: id of a clip -> {'VERB NOUN': log-likelihood that the clip shows it}, with every action that occurs.
      references: id of a clip -> its row of rareact.csv: `video` (of the clip), `verb`, `noun` and `annotation`.

    Raises:
      ValueError: no clip is positive, or a likelihood is missing or not a number.
    """
    ids = list(references)
    rows = [(r['video'], r['verb'], r['noun'], int(r['annotation'])) for r in references.values()]
    actions = list(dict.fromkeys((verb, noun) for _, verb, noun, _ in rows))
    positives = [i for i, row in enumerate(rows) if row[3] == 1]
    if not positives:
        raise UserError('mWAP needs a positive clip (annotation 1), but there is none.')
    values = []
    for id in ids:
        by_action = likelihoods(id, predictions[id])
        if missing := [f'{verb} {noun}' for verb, noun in actions if f'{verb} {noun}' not in by_action]:
            raise UserError(f'The prediction for {id!r} has no likelihood for {missing[0]!r}.')
        values.append(by_action)

    precisions, influences = [], np.zeros(len(ids))
    for action in actions:
        own: dict[int, list[int]] = {1: [], 0: [], 2: []}
        for i, (_, verb, noun, annotation) in enumerate(rows):
            if (verb, noun) == action:
                own[min(annotation, 2)].append(i)
        if not own[1]:
            continue
        for i in positives:
            shared = (rows[i][1] == action[0]) + (rows[i][2] == action[1])
            if shared < 2:
                own[2 if shared else 0].append(i)
        clips = np.array(own[1] + own[0] + own[2])
        weights = np.concatenate([_weights([rows[i][0] for i in group]) for group in own.values() if group])
        name = ' '.join(action)
        scores = np.array([values[i][name] for i in clips])
        precision, influence = _average_precision(np.arange(len(clips)) < len(own[1]), scores, weights)
        precisions.append(precision)
        np.add.at(influences, clips, influence)
    mean = float(np.mean(precisions))
    each = mean + influences * len(ids) / len(precisions)
    return mean, dict(zip(ids, each.tolist(), strict=True))


def _weights(videos: list[str]) -> np.ndarray:
    """For each clip, 1 divided by the number of clips of its video."""
    _, which, number = np.unique(videos, return_inverse=True, return_counts=True)
    return 1 / number[which]


def _average_precision(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The weighted average precision, as scikit-learn computes it, and how each clip changes it.

    The change is the derivative by the clip's weight, times the weight.
    """
    order = np.argsort(-scores, kind='stable')
    positive, weights, sorted_scores = positive[order], weights[order], scores[order]
    # Clips with equal scores stand at one threshold, that of the last of them.
    last = np.searchsorted(-sorted_scores, -sorted_scores, side='right') - 1
    first = np.searchsorted(-sorted_scores, -sorted_scores, side='left')
    shown, right = np.cumsum(weights)[last], np.cumsum(weights * positive)[last]
    precision, mass = right / shown, weights * positive / (weights * positive).sum()
    average = float((precision * mass).sum())
    # A clip changes the precision at each threshold from its own on: by (1 or 0 - precision) / weight shown there.
    for_a_positive, for_a_negative = (
        np.cumsum((mass * (kind - precision) / shown)[::-1])[::-1][first] for kind in (1, 0)
    )
    change = positive * (precision - average) / (weights * positive).sum()
    change = change + np.where(positive, for_a_positive, for_a_negative)
    influences = np.empty_like(change)
    influences[order] = change * weights
    return average, influences
