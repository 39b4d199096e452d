"""Exact match as SMMILE's own code has it (eth-medical-ai-lab/smmile, evaluate_EM.py): of words without punctuation.

ASCII punctuation is removed, also within words, and white space is one space. Case is ignored.
"""

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flamingo_jax.evaluation.metrics import Scored, refuse_without_references, texts

NO_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))


def score(predictions: Mapping[Any, Any], references: Mapping[Any, Sequence[str]]) -> Scored:
    """The share of answers that match a right one.

    ValueError if a prediction is not a text, or if there is no reference.
    """
    refuse_without_references(references)
    answers = zip(references, texts(predictions, references), strict=True)
    each = {id: float(normal(answer) in {normal(truth) for truth in references[id]}) for id, answer in answers}
    return float(np.mean(list(each.values()))), each


def normal(answer: str) -> str:
    """An answer in the form that is compared."""
    return ' '.join(answer.lower().translate(NO_PUNCTUATION).split())
