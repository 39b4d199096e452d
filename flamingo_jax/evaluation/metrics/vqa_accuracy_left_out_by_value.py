"""VQA accuracy where an annotator is left out with all whose entry equals his, as in OpenFlamingo 2.0.1.

Entries of VQAv2 differ by their `answer_id`, so that the score is that of `vqa_accuracy`. Those of VizWiz have none:
annotators who agree, and are equally sure, are lost together, and an answer that all gave scores 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flamingo_jax.evaluation.metrics import refuse_without_references, texts
from flamingo_jax.evaluation.metrics.vqa_accuracy import Entry, answer_of, normal, stripped


def score(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[Entry]]) -> tuple[float, dict[Any, float]]:
    """The mean accuracy, and that of each question.

    Args:
      predictions: id -> an answer.
      references: id -> the entries of the annotation file; a mere text counts as an entry with an id of its own.

    Raises:
      ValueError: a prediction is not a text, or a question has no answers.
    """
    return mean_accuracy_by_value(predictions, references, lambda a, given: (normal(a), [normal(g) for g in given]))


def mean_accuracy_by_value(
    predictions: Mapping[Any, str],
    references: Mapping[Any, Sequence[Entry]],
    compared: Callable[[str, Sequence[str]], tuple[str, list[str]]],
    strip: bool = True,
) -> tuple[float, dict[Any, float]]:
    """The mean accuracy, and that of each question.

    compared: gives a prediction and its annotators' answers the form in which they are compared.
    strip: whether answers of annotators lose white space around them.
    """
    refuse_without_references(references)
    each = {}
    for id, answer in zip(references, texts(predictions, references), strict=True):
        entries = references[id]
        given = [answer_of(entry) for entry in entries]
        answer, given = compared(stripped(answer), [stripped(other) for other in given] if strip else given)
        whole = [
            (i, other) if isinstance(entry, str) else dict(entry) | dict(answer=other)
            for i, (entry, other) in enumerate(zip(entries, given, strict=True))
        ]
        others = [[o == answer for o, w in zip(given, whole, strict=True) if w != own] for own in whole]
        each[id] = float(np.mean([min(1.0, sum(agree) / 3) for agree in others]))
    return float(np.mean(list(each.values()))), each
