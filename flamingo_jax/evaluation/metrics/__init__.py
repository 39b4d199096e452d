"""Metrics: one file each, with one function `score`.

    score(predictions, references) -> (score of the set, {id: score of one})

Both arguments are dicts with the same ids. A prediction is a text, or the log-likelihood of every candidate, as the
metric requires. The score of the set may differ from the mean of the others (CIDEr, ROC AUC) and exceed 1 (CIDEr).
"""

import importlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

Scored = tuple[float, dict[str, float]]
Metric = Callable[[Mapping[str, Any], Mapping[str, Any]], Scored]


def score(name: str, predictions: Mapping[str, Any], references: Mapping[str, Any]) -> Scored:
    """The score of a set and of each of its ids, by the metric of this name.

    Raises:
      ValueError: there is no such metric, there are no predictions, or predictions and references have different ids.
    """
    there = sorted(path.stem for path in pathlib.Path(__file__).parent.glob('*.py') if path.stem != '__init__')
    if name not in there:
        raise ValueError(f'There is no metric {name!r}. The metrics are {there}.')
    check(predictions, references)
    return importlib.import_module(f'{__name__}.{name}').score(predictions, references)


def check(predictions: Mapping[str, Any], references: Mapping[str, Any]) -> None:
    """ValueError unless there is exactly one prediction for each reference."""
    if not references:
        raise ValueError('There is nothing to score.')
    if different := sorted(predictions.keys() ^ references.keys()):
        which = 'prediction' if different[0] in references else 'reference'
        raise ValueError(
            f'Predictions and references must have the same ids, but {len(different)} ids have only one of the two; '
            f'{different[0]!r} has no {which}.'
        )
