"""Accuracy as VL-ICL Bench's own code has it (ys-zong/VL-ICL, evals/eval.py): only an answer's beginning counts.

`score` is of texts and counts, `vl_icl_number` of operator induction, `vl_icl_yes` of matching. Each reference is the
right answer alone, in a sequence.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flamingo_jax.evaluation.metrics import Metric, Scored, refuse_without_references, texts


def score(predictions: Mapping[Any, Any], references: Mapping[Any, Sequence[str]]) -> Scored:
    """The share of answers whose beginning is the right one, ignoring case.

    ValueError if a prediction is not a text, or if there is no reference.
    """
    return _share(predictions, references, lambda text, truth: text.lower() == truth.lower())


def _number(text: str, truth: str) -> bool:
    """Whether the first digits are the right number. A sign before them is not read."""
    found = re.search(r'\d+', text)
    return (found[0] if found else '') == truth


def _yes(text: str, truth: str) -> bool:
    """Whether 'yes' is said, if it should be. Every other answer is a no, also none at all."""
    return truth.lower() in ('yes', 'no') and ('yes' in text.lower()) == (truth.lower() == 'yes')


def beginning(text: str) -> str:
    """The first line of an answer; of an answer of one line, what is before its first full stop."""
    text = text.strip()
    end = text.find('\n')
    end = text.find('.') if end < 0 else end
    return text[:end] if end > 0 else text


def _share(
    predictions: Mapping[Any, Any], references: Mapping[Any, Sequence[str]], right: Callable[[str, str], bool]
) -> Scored:
    refuse_without_references(references)
    answers = zip(references, texts(predictions, references), strict=True)
    each = {id: float(right(beginning(answer), references[id][0])) for id, answer in answers}
    return float(np.mean(list(each.values()))), each


VARIANTS: Mapping[str, Metric] = dict(
    vl_icl_number=lambda predictions, references: _share(predictions, references, _number),
    vl_icl_yes=lambda predictions, references: _share(predictions, references, _yes),
)
