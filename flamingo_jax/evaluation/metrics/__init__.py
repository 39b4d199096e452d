"""How answers are scored: one file a metric, each with one function `score`.

    score(predictions, references) -> (score of the set, {id: score of one})

Both arguments are dicts by the same ids. A prediction is a text, or where the metric asks for it the log-likelihood of every
candidate. The score of the set need not be the mean of the others (CIDEr, ROC AUC), nor lie below 1 (CIDEr).
"""

import importlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

Scored = tuple[float, dict[str, float]]
Metric = Callable[[Mapping[str, Any], Mapping[str, Any]], Scored]


def score(name: str, predictions: Mapping[str, Any], references: Mapping[str, Any]) -> Scored:
    """The score of a set, and of each of its ids, by the metric of that name.

    Raises:
      ValueError: there is no such metric, no predictions, or they are not of the same ids as the references.
    """
    there = sorted(path.stem for path in pathlib.Path(__file__).parent.glob('*.py') if path.stem != '__init__')
    if name not in there:
        raise ValueError(f'There is no metric {name!r}; there are {there}.')
    check(predictions, references)
    return importlib.import_module(f'{__name__}.{name}').score(predictions, references)


def check(predictions: Mapping[str, Any], references: Mapping[str, Any]) -> None:
    """ValueError unless there is exactly one prediction for each reference."""
    if not references:
        raise ValueError('There is nothing to score.')
    if different := sorted(predictions.keys() ^ references.keys()):
        which = 'prediction' if different[0] in references else 'reference'
        raise ValueError(
            f'{len(different)} ids have only one of prediction and reference; {different[0]!r} has no {which}.'
        )
