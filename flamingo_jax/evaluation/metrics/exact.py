"""Exact match with any of the references, ignoring case, outer white space and a final full stop.

Texts that Unicode spells in two ways are equal, in any script (NFKC). ASCII has one spelling, so that English answers
are compared as they stand.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flamingo_jax.evaluation.metrics import texts

FULL_STOPS = '.。．｡|।॥۔።။។։།'  # Of the scripts that have one; the bar stands for the danda.


def score(predictions: Mapping[Any, Any], references: Mapping[Any, Sequence[str]]) -> tuple[float, dict[Any, float]]:
    """The share of answers that match; each reference is a sequence of right answers.

    ValueError if a prediction is not a text.
    """
    answers = zip(references, texts(predictions, references), strict=True)
    each = {id: float(any(same_answer(answer, truth) for truth in references[id])) for id, answer in answers}
    return float(np.mean(list(each.values()))), each


def same_answer(answer: str, truth: str) -> bool:
    """Whether two answers match."""
    return normal(answer) == normal(truth)


def normal(answer: str) -> str:
    """An answer in the form that is compared."""
    text = unicodedata.normalize('NFKC', _bare(_bare(answer).rstrip(FULL_STOPS))).casefold()
    # Turkish has an i with a dot and one without, in both cases, and nothing says that a text is Turkish.
    return text.replace('i\u0307', 'i').replace('ı', 'i')


def _bare(text: str) -> str:
    """A text without white space and marks that cannot be seen (category Cf, such as of direction) at its ends."""
    seen = [i for i, c in enumerate(text) if not c.isspace() and unicodedata.category(c) != 'Cf']
    return text[seen[0] : seen[-1] + 1] if seen else ''
