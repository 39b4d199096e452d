"""Evaluations of a tiny run: the same report whatever the machine, and nothing lost where one is stopped."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.answered import FILE, FOLDER
from flamingo_jax.evaluation.run import evaluate
from flamingo_jax.inference import pretrained
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.parallel import rules
from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.words import Words
from tests.tiny_run import SAMPLE, free_port

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = [pytest.mark.usefixtures('quick_compilation'), pytest.mark.long]


def small(parts, **changes) -> ConfigDict:
    """Two tasks, both kinds of answers, 9 episodes: no batch divides them."""
    c = evaluation.base()
    c.data, c.features, c.episodes, c.batch_size = SAMPLE, str(parts / 'features'), 9, 4
    c.max_new_tokens, c.num_beams = 3, 1  # Beams take long to compile.
    styles = dict(query_styles=('fluent-3d',), support_styles=('noto',))
    c.tasks['words'] = evaluation.task(Words, ways=2, shots=(1,), **styles)
    c.tasks['names'] = evaluation.task(
        Names, shots=(0, 2), answers=('open-ended',), query_split='train', support_split='train', told=True, **styles
    )
    c.update(changes)
    return c


def rows_and_examples(folder):
    report = json.loads((folder / 'report.json').read_text())
    return report['rows'], (folder / 'contact_sheet.html').read_text()


@pytest.fixture(scope='module')
def evaluated(parts, run, tmp_path_factory):
    """(the report of one device, the number of different questions in it)."""
    folder = tmp_path_factory.mktemp('whole')
    with pytest.MonkeyPatch.context() as counted:
        counting = Counting(counted)
        evaluate(small(parts), run, folder)
    return rows_and_examples(folder), counting.asked


@pytest.fixture(scope='module')
def whole(evaluated):
    return evaluated[0]


@pytest.fixture(scope='module')
def questions(evaluated):
    return evaluated[1]


def reordered(parts, **changes) -> ConfigDict:
    """The tasks in the other order."""
    c = small(parts, **changes)
    c.tasks = ConfigDict(dict(reversed(c.tasks.items())))
    return c


@pytest.mark.parametrize(
    'changes',
    [dict(batch_size=1), dict(batch_size=16, mesh=dict(data=-1, fsdp=2, tensor=2))],
    ids=str,
)
def test_neither_batch_size_nor_mesh_nor_the_order_of_tasks_changes_an_answer(parts, run, whole, tmp_path, changes):
    evaluate(reordered(parts, **changes), run, tmp_path)
    rows, _ = rows_and_examples(tmp_path)
    assert sorted(rows, key=str) == sorted(whole[0], key=str)


def test_nor_do_they_with_beams_from_pixels(parts, run, tmp_path):
    how, reports = dict(num_beams=2, length_penalty=0.5, features=''), []
    for changes in ({}, dict(batch_size=3, mesh=dict(data=2, fsdp=1, tensor=2))):
        folder = tmp_path / str(len(reports))
        evaluate(small(parts, **how, **changes), run, folder)
        reports.append(rows_and_examples(folder)[0])
    assert reports[0] == reports[1]


def test_two_processes_write_the_report_of_one(parts, run, whole, tmp_path):
    """Each host has its own copy of the images, whose files may have other times."""
    (tmp_path / 'config.py').write_text(
        'import os, pathlib\n'
        'from flamingo_jax.inputs.sources.image_set import ImageSet\n'
        'from tests.test_evaluate import small\n'
        'identity = ImageSet.identity\n'
        'ImageSet.identity = lambda self, image: [os.environ["COPY"], identity(self, image)]\n'
        f'def get_config():\n    return small(pathlib.Path({str(parts)!r}))\n'
    )
    line = [sys.executable, '-m', 'flamingo_jax.evaluate', f'--config={tmp_path / "config.py"}']
    line += [f'--checkpoint={run}', f'--workdir={tmp_path / "report"}', '--processes=2']
    line += [f'--coordinator=localhost:{free_port()}']
    environment = os.environ | dict(JAX_DISABLE_MOST_OPTIMIZATIONS='1', PYTHONPATH=str(ROOT))
    logs, running = [tmp_path / f'{i}.log' for i in range(2)], []
    for i, log in enumerate(logs):
        with open(log, 'w') as out:
            own = dict(cwd=ROOT, env=environment | dict(COPY=str(i)), stdout=out, stderr=out)
            running.append(subprocess.Popen([*line, f'--process_id={i}'], **own))
    codes = [process.wait() for process in running]
    said = [log.read_text() for log in logs]
    assert codes == [0, 0], said[0][-3000:] + said[1][-3000:]
    assert 'words, ranked' in said[0] and 'words, ranked' not in said[1]
    assert rows_and_examples(tmp_path / 'report') == whole


class Counting:
    """Counts the prompts that models are asked, and stops after some."""

    def __init__(self, monkeypatch, stop_after: int = 10**9):
        self.asked, self.stop_after = 0, stop_after
        for name in ('answers', 'choose', 'score'):
            monkeypatch.setattr(Pretrained, name, self._counting(getattr(Pretrained, name)))

    def _counting(self, method):
        def counted(model, prompts, *args, **kwargs):
            if self.asked >= self.stop_after:
                raise OSError('The disk is full.')
            self.asked += len(prompts)
            return method(model, prompts, *args, **kwargs)

        return counted


def test_an_evaluation_that_is_stopped_goes_on(parts, run, whole, questions, tmp_path, monkeypatch):
    """In the middle of a row, with another batch size, alone or with other tasks."""
    with monkeypatch.context() as stopped, pytest.raises(OSError, match='disk'):
        counting = Counting(stopped, stop_after=31)
        evaluate(small(parts), run, tmp_path)
    first = counting.asked
    assert (tmp_path / FILE).is_file() and not (tmp_path / 'report.json').exists()

    # Not with another config: some rows would be of one, some of the other.
    with pytest.raises(ValueError, match=r'differs in config.episodes \(there 9, here 5\)'):
        evaluate(small(parts, episodes=5), run, tmp_path)
    other = small(parts)
    other.tasks.words.ways = 3
    with pytest.raises(ValueError, match=r'differs in config.tasks.words.ways \(there 2, here 3\)'):
        evaluate(other, run, tmp_path)

    # A line that was cut short is asked again.
    (file,) = (tmp_path / FOLDER).iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-9])
    alone = small(parts, batch_size=1)
    del alone.tasks.words
    alone.tasks.names.shots = (0,)
    with pytest.raises(ValueError, match='config.tasks.names.shots'):
        evaluate(alone, run, tmp_path)
    alone.tasks.names.shots = (0, 2)
    with monkeypatch.context() as counted:
        counting = Counting(counted)
        evaluate(alone, run, tmp_path)
    second = counting.asked
    assert rows_and_examples(tmp_path)[0] == [row for row in whole[0] if row['task'] == 'names']
    assert not (tmp_path / FILE).exists()

    with monkeypatch.context() as counted:
        counting = Counting(counted)
        evaluate(small(parts, batch_size=3), run, tmp_path)
    assert rows_and_examples(tmp_path) == whole
    assert first + second + counting.asked == questions + 1, 'one line was cut short'


def test_a_checkpoint_that_went_on_is_another(parts, run, questions, tmp_path, monkeypatch):
    """The same path, a later step: the answers are of the step before, and an unfinished evaluation is not mixed."""
    load, c = pretrained.load, small(parts)
    with monkeypatch.context() as stopped, pytest.raises(OSError, match='disk'):
        Counting(stopped, stop_after=3)
        evaluate(c, run, tmp_path)

    def later(*args, **how):
        return dataclasses.replace(load(*args, **how), step=2, digest='another')

    monkeypatch.setattr(pretrained, 'load', later)
    with pytest.raises(ValueError, match='differs in digest'):
        evaluate(c, run, tmp_path)
    (tmp_path / FILE).unlink()
    counting = Counting(monkeypatch)
    evaluate(c, run, tmp_path)
    assert counting.asked == questions, 'all of them'


def test_what_a_run_trained_is_read_into_shards(run):
    """Nothing is on a single device first: on a large mesh it would not fit."""
    mesh = make_mesh(2, 2, 2)
    on_mesh, whole = (pretrained.load(run, where) for where in (mesh, None))
    boxed = jax.eval_shape(on_mesh.model.init, jax.random.key(0))
    for name in ('resampler', 'xattn', 'extra_tokens'):
        expected = rules.shardings(boxed[name], mesh)
        pairs = zip(jax.tree.leaves(on_mesh.params[name]), jax.tree.leaves(expected), strict=True)
        assert all(x.sharding.is_equivalent_to(sharding, x.ndim) for x, sharding in pairs)
        jax.tree.map(np.testing.assert_array_equal, on_mesh.params[name], whole.params[name])


def test_several_seeds_draw_other_examples(parts, run, whole, tmp_path):
    evaluate(small(parts, seeds=2), run, tmp_path)
    rows, _ = rows_and_examples(tmp_path)
    assert [row for row in rows if row['seed'] == 0] == whole[0]
    assert [row['seed'] for row in rows] == [0, 1] * len(whole[0])
    lines = [json.loads(line) for line in (tmp_path / 'queries.jsonl').read_text().splitlines()]
    assert len(lines) == 9 * len(rows)
    for row in rows:
        scores = [q['score'] for q in lines if all(q[key] == row[key] for key in ('task', 'shots', 'support', 'seed'))]
        assert sum(scores) / 9 == pytest.approx(row['scores']['model']['value'])
    with pytest.raises(ValueError, match='seeds is 0'):
        evaluate(small(parts, seeds=0), run, tmp_path)
