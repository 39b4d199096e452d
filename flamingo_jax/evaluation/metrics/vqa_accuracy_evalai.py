"""VQA accuracy by mmf and lmms-eval on OK-VQA, TextVQA and VizWiz: the answer processor that they name after EvalAI.

Before all else, answers lose commas and question marks, and `'s` becomes a word of its own. `vqa_accuracy.py` lists the
other versions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flamingo_jax.evaluation.metrics import vqa_accuracy
from flamingo_jax.evaluation.metrics.vqa_accuracy import Entry


def score(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[Entry]]) -> tuple[float, dict[Any, float]]:
    """The mean accuracy, and that of each question; arguments and errors as in `vqa_accuracy`."""
    return vqa_accuracy.mean_accuracy(predictions, references, normal)


def normal(answer: str) -> str:
    """An answer in the form that is compared."""
    return vqa_accuracy.normal(answer.lower().replace(',', '').replace('?', '').replace("'s", " 's").strip())
