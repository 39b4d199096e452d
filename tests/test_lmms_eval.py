"""The plug-in for lmms-eval: its own command runs tasks of its own, on drawings, with the model in the repository.

The documents have the fields of the sets as lmms-eval reads them; prompts and scores are lmms-eval's. What it needs to
run is in the extra `parity`, and lmms-eval 0.7.3 itself is installed with --no-deps.
"""

import importlib
import importlib.util
import itertools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from flamingo_jax.inference.pretrained import load
from flamingo_jax.inputs.images import ImageFormat, decode
from flamingo_jax.inputs.sources.image_set import ImageSet

pytestmark = pytest.mark.parity
ROOT = pathlib.Path(__file__).parents[1]
BUNDLE, SAMPLE = ROOT / 'experiments' / 'picture_dictionary', ROOT / 'data' / 'picture_dictionary' / 'sample'
NUMBER = 12  # Questions.
KINDS = dict(animal='is it an animal?', food='is it a food?')


def drawings(style: str, number: int) -> list[dict]:
    """VQAv2's documents about drawings: half of the answers are yes."""
    images = ImageSet(str(SAMPLE), 'test', ImageFormat(72), styles=(style,))
    documents, rng = [], np.random.default_rng(0)
    for image in images.images:
        kind = image.subcategory.partition('-')[0]
        if kind in KINDS and len(documents) < number:
            about = list(KINDS)[rng.integers(2)]
            answer = 'yes' if about == kind else 'no'
            documents.append(
                dict(
                    question=KINDS[about],
                    question_id=len(documents),
                    image=decode(images.encoded(image)).convert('RGB'),
                    multiple_choice_answer=answer,
                    answers=[dict(answer=answer, answer_id=i) for i in range(10)],
                )
            )
    return documents


@pytest.fixture(scope='module')
def tasks(tmp_path_factory) -> pathlib.Path:
    """lmms-eval's tasks `vqav2_val` and a choice, with these documents in place of the sets on the network."""
    pytest.importorskip('lmms_eval', reason='pip install --no-deps lmms-eval==0.7.3')
    datasets = importlib.import_module('datasets')
    folder = tmp_path_factory.mktemp('tasks')
    splits = dict(train=drawings('noto', NUMBER), validation=drawings('fluent-3d', NUMBER))
    datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(
        folder / 'set'
    )
    package = pathlib.Path(importlib.util.find_spec('lmms_eval').origin).parent
    common = f"""
dataset_path: {folder / 'set'}
dataset_kwargs: {{load_from_disk: true}}
"""
    (folder / 'drawings.yaml').write_text(f'include: {package / "tasks/vqav2/vqav2_val.yaml"}\ntask: drawings{common}')
    (folder / 'choice.yaml').write_text(
        f"""task: choice{common}test_split: validation
output_type: multiple_choice
doc_to_visual: !function {folder}/read.visual
doc_to_text: " Question: {{{{question}}}} Answer:"
doc_to_choice: ["yes", "no"]
doc_to_target: !function {folder}/read.target
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
    )
    (folder / 'read.py').write_text(
        """def visual(doc):
    return [doc['image']]


def target(doc):
    return ['yes', 'no'].index(doc['multiple_choice_answer'])
"""
    )
    return folder


def prompt(tasks: pathlib.Path, number: int, shots: int) -> tuple[list, str]:
    """The prompt that a question must have, written by hand, and its right answer."""
    sets = importlib.import_module('datasets').load_from_disk(str(tasks / 'set'))
    from flamingo_jax.lmms_eval.model import in_random_order

    order = in_random_order(np.random.default_rng((0, number)), len(sets['train']))
    documents = [*(sets['train'][i] for i in itertools.islice(order, shots)), sets['validation'][number]]
    texts = [f' Question: {one["question"]} Answer: {one["multiple_choice_answer"]}<EOC>' for one in documents]
    asked = documents[-1]
    parts = [part for one, text in zip(documents, texts, strict=True) for part in (one['image'], text)]
    return [*parts[:-1], f' Question: {asked["question"]} Answer:'], asked['multiple_choice_answer']


@pytest.fixture(scope='module')
def flamingo():
    return load(BUNDLE)


def test_its_own_command_runs_a_task_of_its_own_with_image_shots(tasks, flamingo, tmp_path):
    given = f'checkpoint={BUNDLE},shots=4,prompt=Question: {{question}} Answer:'
    line = [sys.executable, '-m', 'lmms_eval', '--model', 'flamingo_jax', '--model_args', given, '--tasks', 'drawings']
    line += ['--include_path', str(tasks), '--batch_size', '8', '--output_path', str(tmp_path), '--log_samples']
    env = os.environ | dict(HF_HUB_OFFLINE='1', HF_HOME=str(tmp_path / 'home'))
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert list(tmp_path.rglob('*_results.json')), done.stdout[-2000:] + done.stderr[-2000:]  # It never ends with 1.
    (scores,), (samples,) = tmp_path.rglob('*_results.json'), tmp_path.rglob('*_samples_drawings.jsonl')
    samples = [json.loads(line) for line in samples.read_text().splitlines()]
    asked = [prompt(tasks, sample['doc_id'], 4) for sample in samples]
    answers = flamingo.generate([one for one, _ in asked], max_new_tokens=16)
    assert len(answers) == NUMBER and [sample['filtered_resps'] for sample in samples] == answers
    right = np.mean([answer == truth for answer, (_, truth) in zip(answers, asked, strict=True)])
    score = json.loads(scores.read_text())['results']['drawings']['exact_match,none']
    assert score == pytest.approx(right) and 0 < score


@pytest.fixture
def evaluate(tasks, monkeypatch):
    """lmms-eval's evaluator in this process: a task, and the arguments of the model -> its results."""
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    evaluator, manager = (importlib.import_module(f'lmms_eval.{name}') for name in ('evaluator', 'tasks'))
    here = manager.TaskManager(include_path=str(tasks), include_defaults=False, model_name='flamingo_jax')

    def run(task, **arguments):
        given = ','.join(f'{name}={value}' for name, value in dict(checkpoint=BUNDLE, **arguments).items())
        return evaluator.simple_evaluate(
            'flamingo_jax', given, tasks=[task], task_manager=here, process_docs_parallel=1
        )

    return run


def test_the_likelier_of_two_choices_is_its_answer(tasks, flamingo, evaluate):
    found = evaluate('choice', shots=2)
    right = []
    for number in range(NUMBER):
        asked, truth = prompt(tasks, number, 2)
        yes, no = flamingo.score(asked, [' yes', ' no'])
        right.append(('yes' if yes > no else 'no') == truth)  # Each is one token, so that its mean is its likelihood.
    assert found['results']['choice']['acc,none'] == pytest.approx(np.mean(right))


def test_what_cannot_be_done_is_refused_before_an_answer(evaluate):
    with pytest.raises(ValueError, match=r'leaves no room for an answer .* 256 tokens. At most [0-9]+ shots fit'):
        evaluate('drawings', shots=11)
    with pytest.raises(ValueError, match="has no split 'trial'. Its splits are .'train', 'validation'"):
        evaluate('drawings', shots=1, support='trial')
    with pytest.raises(ValueError, match="no field 'reply'. Its fields are .*'multiple_choice_answer'"):
        evaluate('drawings', shots=1, answer='reply')
    with pytest.raises(ValueError, match='shots is -1'):
        evaluate('drawings', shots=-1)


def test_a_random_order_has_each_number_once():
    from flamingo_jax.lmms_eval.model import in_random_order

    first, second = (list(in_random_order(np.random.default_rng(seed), 9)) for seed in (0, 1))
    assert first != second and sorted(first) == sorted(second) == list(range(9))
    drawn = np.random.default_rng(0).integers(9, size=100).tolist()
    assert first == list(dict.fromkeys(drawn))


def test_images_stand_where_the_text_has_their_tags():
    from flamingo_jax.lmms_eval.model import interleaved

    a, b = object(), object()
    assert interleaved([a, b], 'What is it?', str) == [a, b, ' What is it?']
    assert interleaved([a, b], '<image> and <image>: alike?', str) == [a, ' and', b, ' : alike?']
    assert interleaved([a, b], '<image 2> or <image 1>', str) == [b, ' or', a, '']
    assert interleaved([a], 'Read <image> <image>', str) == [a, ' Read <image> <image>']
