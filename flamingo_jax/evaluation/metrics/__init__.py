"""Metrics: one file each, with a function `score`. Its file names it; versions of it are in the file's `VARIANTS`.

    score(predictions, references) -> (score of the set, {id: score of one})

Both arguments are dicts with the same ids. A prediction is a text, or the log-likelihood of every candidate, as the
metric requires. The score of the set may exceed 1 (CIDEr). It is the mean of the others: where it is none by nature
(ROC AUC, mWAP), the score of an id is the set's plus the influence of this id on it. So intervals and comparisons are
the same code for all (see `intervals.py`).
"""

import importlib
import math
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flamingo_jax.errors import UserError

Scored = tuple[float, dict[Any, float]]
Metric = Callable[[Mapping[Any, Any], Mapping[Any, Any]], Scored]


def score(name: str, predictions: Mapping[Any, Any], references: Mapping[Any, Any]) -> Scored:
    """The score of a set and of each of its ids, by the metric of this name.

    Raises:
      ValueError: there is no such metric, there are no predictions, predictions and references have different ids, or
        one of them is not as the metric takes it; the message names the id.
    """
    metric = find(name)
    check(predictions, references)
    return metric(predictions, references)


def find(name: str) -> Metric:
    """The metric of this name; ValueError if there is none."""
    metrics: dict[str, Metric] = {}
    for path in sorted(pathlib.Path(__file__).parent.glob('[!_]*.py')):
        module = importlib.import_module(f'{__name__}.{path.stem}')
        metrics |= {path.stem: module.score} | getattr(module, 'VARIANTS', {})
    if name not in metrics:
        raise UserError(f'There is no metric {name!r}. The metrics are {[*metrics]}.')
    return metrics[name]


def check(predictions: Mapping[Any, Any], references: Mapping[Any, Any]) -> None:
    """ValueError unless there is exactly one prediction for each reference."""
    if not references:
        raise UserError('There is nothing to score.')
    if different := sorted(predictions.keys() ^ references.keys(), key=str):
        which = 'prediction' if different[0] in references else 'reference'
        raise UserError(
            f'Predictions and references must have the same ids, but {len(different)} ids have only one of the two; '
            f'{different[0]!r} has no {which}.'
        )


def texts(predictions: Mapping[Any, Any], references: Mapping[Any, Any]) -> list[str]:
    """The predictions in the order of the references. An empty text is an answer; what is no text is a ValueError."""
    for id in references:
        if not isinstance(predictions[id], str):
            raise UserError(f'The prediction for {id!r} is {predictions[id]!r}. It must be one text.')
    return [predictions[id] for id in references]


def refuse_without_references(references: Mapping[Any, Any]) -> None:
    """ValueError if an id has no reference, or a text where there should be a sequence of them."""
    for id, truths in references.items():
        if isinstance(truths, str) or not len(truths):
            raise UserError(f'The references of {id!r} are {truths!r}. They must be one or more texts in a sequence.')


def likelihoods(id: Any, prediction: Any) -> dict[Any, float]:
    """A prediction as candidate -> log-likelihood, the likeliest first; candidates that are equally likely by name.

    So the order of the candidates never matters. A sequence of numbers stands for the candidates 0, 1, ...

    ValueError if there are none, or if one is not a number.
    """
    values = dict(prediction) if isinstance(prediction, Mapping) else dict(enumerate(prediction))
    if not values:
        raise UserError(f'The prediction for {id!r} has no candidates.')
    for candidate, value in values.items():
        if math.isnan(value):
            raise UserError(f'The prediction for {id!r} has no likelihood for {candidate!r}: it is not a number (NaN).')
    ordered = sorted(values) if isinstance(prediction, Mapping) else list(values)
    return {candidate: values[candidate] for candidate in sorted(ordered, key=values.__getitem__, reverse=True)}


def mean_in_percent(scores: Sequence[tuple[Any, float]]) -> str:
    """The mean of the scores of some questions, as official scripts print it: '65.30', or '-' of none."""
    return f'{100 * statistics.fmean(score for _, score in scores):.2f}' if scores else '-'
