"""The plug-in for lmms-eval: its own command runs tasks of its own, on drawings, with the model in the repository.

The documents have the fields of the sets as lmms-eval reads them; prompts and scores are lmms-eval's. What it needs to
run is in the extra `parity`, and lmms-eval 0.7.3 itself is installed with --no-deps.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from flamingo_jax.inputs.images import PictureFormat, decode
from flamingo_jax.inputs.sources.picture_set import PictureSet

pytestmark = pytest.mark.parity
ROOT = pathlib.Path(__file__).parents[1]
BUNDLE, SAMPLE = ROOT / 'experiments' / 'picture_dictionary', ROOT / 'data' / 'picture_dictionary' / 'sample'
KINDS = dict(animal='is it an animal?', food='is it a food?')


def drawings(style: str, number: int) -> list[dict]:
    """VQAv2's documents about drawings: half of the answers are yes."""
    pictures = PictureSet(str(SAMPLE), 'test', PictureFormat(72), styles=(style,))
    documents, rng = [], np.random.default_rng(0)
    for picture in pictures.pictures:
        kind = picture.subcategory.partition('-')[0]
        if kind in KINDS and len(documents) < number:
            about = list(KINDS)[rng.integers(2)]
            answer = 'yes' if about == kind else 'no'
            documents.append(
                dict(
                    question=KINDS[about],
                    question_id=len(documents),
                    image=decode(pictures.encoded(picture)).convert('RGB'),
                    multiple_choice_answer=answer,
                    answers=[dict(answer=answer, answer_id=i) for i in range(10)],
                )
            )
    return documents


@pytest.fixture(scope='module')
def tasks(tmp_path_factory) -> pathlib.Path:
    """lmms-eval's tasks `vqav2_val` and a choice, with these documents in place of the sets on the network."""
    datasets = pytest.importorskip('datasets')
    folder = tmp_path_factory.mktemp('tasks')
    splits = dict(train=drawings('noto', 40), validation=drawings('fluent-3d', 24))
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


def evaluated(tasks: pathlib.Path, out: pathlib.Path, task: str, **arguments) -> subprocess.CompletedProcess:
    """lmms-eval's own command."""
    given = ','.join(f'{name}={value}' for name, value in dict(checkpoint=BUNDLE, **arguments).items())
    line = [sys.executable, '-m', 'lmms_eval', '--model', 'flamingo_jax', '--model_args', given, '--tasks', task]
    line += ['--include_path', str(tasks), '--batch_size', '8', '--output_path', str(out), '--log_samples']
    env = os.environ | dict(HF_HUB_OFFLINE='1', HF_HOME=str(out / 'home'))
    return subprocess.run(line, cwd=out, env=env, capture_output=True, text=True)


def results(out: pathlib.Path, task: str, done: subprocess.CompletedProcess) -> tuple[dict, list[dict]]:
    """The scores, and the documents with their answers. lmms-eval ends with 0 after an error too."""
    assert list(out.rglob('*_results.json')), done.stdout[-2000:] + done.stderr[-2000:]
    (scores,) = out.rglob('*_results.json')
    (samples,) = out.rglob(f'*_samples_{task}.jsonl')
    return json.loads(scores.read_text())['results'][task], [json.loads(x) for x in samples.read_text().splitlines()]


def test_a_task_of_lmms_eval_runs_with_picture_shots(tasks, tmp_path):
    done = evaluated(tasks, tmp_path, 'drawings', shots=4, pre_prompt='Question: ', post_prompt=' Answer:')
    scores, samples = results(tmp_path, 'drawings', done)
    print(scores, samples[0])


def test_a_choice_of_lmms_eval_is_ranked(tasks, tmp_path):
    done = evaluated(tasks, tmp_path, 'choice', shots=4)
    scores, samples = results(tmp_path, 'choice', done)
    print(scores, samples[0])


def test_shots_that_do_not_fit_are_refused_with_the_number_that_does(tasks, tmp_path):
    done = evaluated(tasks, tmp_path, 'drawings', shots=11)
    assert not list(tmp_path.rglob('*_results.json'))
    print(done.stdout[-1000:])
