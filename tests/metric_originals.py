"""The official code of the metrics, from the packages that hold it; for parity tests and tests/golden/make_metrics.py.

Each file is read by its place in the package, so that nothing else of the package need be installed.
"""

import contextlib
import copy
import importlib.util
import io
import pathlib
import shutil
import statistics

import pytest


def file_of(package: str, *parts: str) -> pathlib.Path:
    """A file of an installed package; skips the test if the package is not installed."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f'{package} is not installed')
    return pathlib.Path(next(iter(found.submodule_search_locations)), *parts)


def module(package: str, *parts: str):
    """A module of an installed package, without the package."""
    spec = importlib.util.spec_from_file_location(parts[-1].removesuffix('.py'), file_of(package, *parts))
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def ptb(texts: list[str]) -> list[list[str]]:
    """The words by pycocoevalcap's tokenizer, which runs Java; CIDEr splits them at white space."""
    if not shutil.which('java'):
        pytest.skip('java is not installed')
    tokenizer = module('pycocoevalcap', 'tokenizer', 'ptbtokenizer.py').PTBTokenizer()
    found = tokenizer.tokenize({i: [dict(caption=text)] for i, text in enumerate(texts)})
    return [found[i][0].split() for i in range(len(texts))]


def cider(predictions, references) -> tuple[float, dict[str, float]]:
    """CIDEr by pycocoevalcap, with its tokenizer."""
    file_of('pycocoevalcap')
    from pycocoevalcap.cider.cider import Cider

    truths = iter(ptb([truth for some in references.values() for truth in some]))
    captions = ptb([predictions[id] for id in references])
    value, each = Cider().compute_score(
        {id: [' '.join(next(truths)) for _ in some] for id, some in references.items()},
        {id: [' '.join(words)] for id, words in zip(references, captions, strict=True)},
    )
    return float(value), dict(zip(references, map(float, each), strict=True))


class Answers:
    """What the official VQA code calls a VQA object."""

    def __init__(self, qa):
        self.qa = qa

    def getQuesIds(self, *_):  # noqa: N802
        return list(self.qa)


def by_vqa_eval(VQAEval, predictions, references) -> dict[str, float]:  # noqa: N803
    """The accuracies by a class VQAEval."""
    truths = {id: dict(question_type='', answer_type='', answers=copy.deepcopy(a)) for id, a in references.items()}
    evaluation = VQAEval(Answers(truths), Answers({id: dict(answer=p) for id, p in predictions.items()}), n=12)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    return {id: value / 100 for id, value in evaluation.evalQA.items()}


def open_flamingo(predictions, references) -> dict[str, float]:
    """VQA accuracies by OpenFlamingo 2.0.1."""
    return by_vqa_eval(module('open_flamingo', 'eval', 'vqa_metric.py').VQAEval, predictions, references)


def evalai(predictions, references) -> dict[str, float]:
    """VQA accuracies by lmms-eval's answer processor, as its OK-VQA, TextVQA and VizWiz use it."""
    processor = module('lmms_eval', 'tasks', '_task_utils', 'vqa_eval_metric.py').EvalAIAnswerProcessor()
    found = {}
    for id, entries in references.items():
        answer, given = processor(predictions[id]), [processor(entry['answer']) for entry in entries]
        others = [[g for j, g in enumerate(given) if j != i] for i in range(len(given))]
        found[id] = statistics.mean(min(1.0, other.count(answer) / 3) for other in others)
    return found


def with_ids(references):
    """The annotators' entries with an id of each, as VQAv2 has them."""
    return {id: [dict(entry, answer_id=i) for i, entry in enumerate(some)] for id, some in references.items()}
