"""The commands that a user gives after training, as real processes on a real run."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from ml_collections import ConfigDict

from experiments.evaluate import quickstart
from flamingo_jax.evaluate import evaluate, measure
from flamingo_jax.train import train
from tests.tiny_run import make_parts, tiny_config

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp('parts')
    make_parts(folder)
    config = tiny_config(folder)
    config.steps = 2
    train(config, str(folder / 'run'))
    return folder


def command(*arguments):
    environment = os.environ | dict(JAX_DISABLE_MOST_OPTIMIZATIONS='1')
    line = [sys.executable, '-m', *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_evaluate_writes_every_report(parts, tmp_path):
    done = command(
        'flamingo_jax.evaluate',
        '--config=experiments/evaluate/quickstart.py',
        f'--checkpoint={parts / "run"}',
        f'--workdir={tmp_path}',
        f'--config.features={parts / "features"}',
        '--config.episodes=6',
        '--config.max_new_tokens=3',
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert '5-way new words' in done.stdout
    report = json.loads((tmp_path / 'report.json').read_text())
    names = {'model', 'shuffled pictures', 'text only', 'nearest centroid', 'nearest neighbour', 'chance'}
    assert len(report['rows']) == 4
    for row in report['rows']:
        assert set(row['scores']) == names | ({'any candidate'} if row['answers'] == 'open-ended' else set())
        assert row['episodes'] == 6
    for name in ('report.txt', 'report.png', 'contact_sheet.html'):
        assert (tmp_path / name).stat().st_size > 100
    again = command(
        'flamingo_jax.evaluate',
        '--config=experiments/evaluate/quickstart.py',
        f'--checkpoint={parts / "nothing"}',
        f'--workdir={tmp_path}',
    )
    assert again.returncode != 0
    assert 'neither a bundle' in again.stderr


def test_prompts_longer_than_the_context_are_refused_before_the_first_episode(parts, tmp_path, monkeypatch):
    monkeypatch.setattr('flamingo_jax.evaluate.measure', None)
    config = quickstart.get_config()
    config.features, config.episodes, config.max_new_tokens = str(parts / 'features'), 20, 3
    config.tasks.names.update(shots=(4, 60), answers=('open-ended', 'ranked'))
    with pytest.raises(ValueError, match='exceed the context of 128 tokens') as error:
        evaluate(config, str(parts / 'run'), str(tmp_path / 'report'))
    generated, ranked, remedy = str(error.value).splitlines()
    assert re.match(
        'Task names, 60 shots, random, open-ended: a prompt of [0-9]+ tokens and 3 for the answer', generated
    )
    assert ranked.startswith('Task names, 60 shots, random, ranked: ') and 'longer context' in remedy
    assert not (tmp_path / 'report').exists()


def test_without_examples_random_and_rices_are_asked_once(parts, tmp_path, monkeypatch):
    ran = []

    def run(config, model, task, shots, support, *more):
        ran.append((shots, support))
        return measure(config, model, task, shots, support, *more)

    monkeypatch.setattr('flamingo_jax.evaluate.measure', run)
    config = quickstart.get_config()
    config.features, config.episodes = str(parts / 'features'), 4
    config.tasks = ConfigDict(dict(names=config.tasks.names))
    config.tasks.names.update(shots=(0, 1), support=('random', 'rices'), answers=('ranked',))
    rows = evaluate(config, str(parts / 'run'), str(tmp_path / 'report'))
    assert ran == [(0, 'random'), (1, 'random'), (1, 'rices')]
    assert [(row.shots, row.support) for row in rows] == [(0, 'random'), (1, 'random'), (0, 'rices'), (1, 'rices')]
    assert rows[0].scores == rows[2].scores


def test_generate_keeps_the_order_of_its_arguments(parts, tmp_path):
    for name, colour in (('a', 'red'), ('b', 'blue')):
        PIL.Image.fromarray(np.full((30, 30, 3), 200 if colour == 'red' else 20, np.uint8)).save(
            tmp_path / f'{name}.png'
        )
    prompt = [
        f'--image={tmp_path / "a.png"}',
        '--text= Output: dax<EOC>',
        f'--image={tmp_path / "b.png"}',
        '--text= Output:',
    ]
    done = command('flamingo_jax.generate', f'--checkpoint={parts / "run"}', '--max_new_tokens=4', *prompt)
    assert done.returncode == 0, done.stderr[-2000:]

    import flamingo_jax

    model = flamingo_jax.load(parts / 'run')
    a, b = tmp_path / 'a.png', tmp_path / 'b.png'
    assert done.stdout.strip() == model.generate([a, ' Output: dax<EOC>', b, ' Output:'], max_new_tokens=4)
    done = command('flamingo_jax.generate', f'--checkpoint={parts / "run"}', '--image=missing.png', '--text= Output:')
    assert done.returncode != 0
    assert 'missing.png' in done.stderr


@pytest.mark.parametrize('name', ['train', 'evaluate', 'generate', 'convert', 'features', 'inputs.tokenizer'])
def test_every_command_has_help(name):
    done = command(f'flamingo_jax.{name}', '--help')
    assert 'python -m flamingo_jax' in done.stdout
