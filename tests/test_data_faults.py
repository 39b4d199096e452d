"""Faults of what a run is trained on: each is told, and no good checkpoint is lost. The folders, kills and disks are
real.
"""

import multiprocessing
import os
import pathlib
import resource
import shutil
import signal
import time
import types

import jax
import numpy as np
import PIL.Image
import pytest
from absl import flags

from flamingo_jax import features, files
from flamingo_jax.checkpoints import bundle
from flamingo_jax.checkpoints.run_format import read_latest, steps
from flamingo_jax.errors import DivergedError
from flamingo_jax.inputs import pipeline
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.train import train
from flamingo_jax.training import checkpoint, progress
from flamingo_jax.training.config import dataset
from flamingo_jax.training.progress import Progress
from tests.own_data import break_disk, documents, repair_disk
from tests.tiny_run import losses, tiny_config

pytestmark = pytest.mark.usefixtures('quick_compilation')
STEPS, FAULT = 24, 5  # The fault is after step 5, and up to 12 batches are read ahead.


@pytest.fixture
def own(tmp_path):
    yield documents(tmp_path / 'own', 'A text.')
    for worker in multiprocessing.active_children():  # Of a run that ended with an error.
        worker.kill()


def config_of(parts, own, workers=0):
    c = tiny_config(parts)
    del c.datasets.words, c.datasets.names
    c.datasets.own = dataset(Documents, path=str(own / 'own.jsonl'), length=32, images=1, batch_size=8, workers=workers)
    c.steps, c.keep_checkpoints, c.checkpoint_every = STEPS, 2, 4
    return c


@pytest.fixture(scope='module')
def undisturbed(parts, tmp_path_factory):
    """The parameters after all steps."""
    folder = tmp_path_factory.mktemp('undisturbed')
    train(config_of(parts, documents(folder / 'own', 'A text.')), folder / 'run')
    return read_latest(folder / 'run')[1]


def after_step(monkeypatch, step, fault):
    """Lets a run have a fault after a step. Returns the metrics of its steps."""
    seen = {}

    class Faulty(Progress):
        def add(self, number, metrics, waited):
            seen[number] = metrics
            if number == step:
                fault()
            super().add(number, metrics, waited)

    monkeypatch.setattr('flamingo_jax.training.run.Progress', Faulty)
    return seen


def first_damaged(seen):
    """The first step with a damaged image."""
    return min(step for step, metrics in seen.items() if metrics['own/unreadable'])


def assert_goes_on(config, workdir, undisturbed, monkeypatch):
    """What is left of a run that ended is good: after the repair it ends as one that had no fault."""
    assert steps(workdir / 'checkpoints')[0] >= FAULT - 1
    monkeypatch.setattr('flamingo_jax.training.run.Progress', Progress)
    train(config, workdir)
    jax.tree.map(np.testing.assert_array_equal, read_latest(workdir)[1], undisturbed)


@pytest.mark.parametrize('workers', [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_folder_that_goes_away_ends_the_run(parts, own, tmp_path, undisturbed, monkeypatch, workers):
    """As when a disk is unmounted."""
    flags.FLAGS.mark_as_parsed()  # Grain's workers read flags of its own.
    config = config_of(parts, own, workers)
    after_step(monkeypatch, FAULT, lambda: (own / 'images').rename(own / 'unmounted'))
    with pytest.raises(FileNotFoundError, match=r'Errno 2.*own/images/\d+.png'):
        train(config, tmp_path / 'run')
    assert not any(number for _, number in losses(tmp_path / 'run', 'unreadable_images'))
    (own / 'unmounted').rename(own / 'images')
    assert_goes_on(config, tmp_path / 'run', undisturbed, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize('workers', [0, 1])
def test_a_disk_that_fails_ends_the_run(parts, own, tmp_path, undisturbed, monkeypatch, workers):
    flags.FLAGS.mark_as_parsed()
    monkeypatch.setattr(files, 'WAITS', ())  # A worker has the usual ones.
    config = config_of(parts, own, workers)
    after_step(monkeypatch, FAULT, lambda: break_disk(own))
    with pytest.raises(OSError, match=r'Errno 5.*own/images/\d+.png'):
        train(config, tmp_path / 'run')
    repair_disk(own)
    assert_goes_on(config, tmp_path / 'run', undisturbed, monkeypatch)


@pytest.mark.long
def test_a_disk_that_fails_for_a_while_changes_nothing(parts, own, tmp_path, undisturbed, monkeypatch):
    """The first wait ends when the disk is whole again."""
    tried = []

    def wait(seconds):
        tried.append(seconds)
        repair_disk(own)

    monkeypatch.setattr(files, 'time', types.SimpleNamespace(sleep=wait))
    monkeypatch.setattr(pipeline, 'THREADS', 1)  # Several threads would repair at once.
    after_step(monkeypatch, FAULT, lambda: break_disk(own))
    train(config_of(parts, own), tmp_path / 'run')
    assert tried and set(tried) == {0.5}
    jax.tree.map(np.testing.assert_array_equal, read_latest(tmp_path / 'run')[1], undisturbed)


def test_an_error_loses_no_step_and_no_checkpoint_that_is_being_written(parts, own, tmp_path, monkeypatch, capsys):
    """The write takes longer than the step after it, which fails."""

    def slowly(folder, digests=checkpoint._digests):
        time.sleep(1)
        return digests(folder)

    def fail():
        raise OSError('The disk is away.')

    monkeypatch.setattr(checkpoint, '_digests', slowly)
    after_step(monkeypatch, 6, fail)
    config = config_of(parts, own)
    config.checkpoint_every = 2
    with pytest.raises(OSError, match='The disk is away'):
        train(config, tmp_path / 'run')
    assert 'OSError: The disk is away.\nFirst the checkpoint is waited for' in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path / 'run/checkpoints')) == ['2', '4']
    assert [step for step, _ in losses(tmp_path / 'run')] == [1, 2, 3, 4, 5]


def damage(own):
    """From now on no image is one."""
    for image in (own / 'images').iterdir():
        image.write_bytes(b'no image')


def test_too_many_damaged_images_end_the_run(parts, own, tmp_path, monkeypatch):
    """There are texts to learn, so that the loss is finite: nothing else would tell."""
    monkeypatch.setattr(progress, 'WINDOW', 8)
    config = config_of(parts, own)
    config.steps = 40
    seen = after_step(monkeypatch, FAULT, lambda: damage(own))
    said = r"data set 'own', \d+% in the last 8 batches are damaged, more than config.max_unreadable=0.1"
    with pytest.raises(ValueError, match=said):
        train(config, tmp_path / 'run')
    first = first_damaged(seen)
    assert (
        max(steps(tmp_path / 'run/checkpoints')) <= first + 4
    )  # Threads may read some good batches after a damaged one.
    config.max_unreadable, config.resume_changed = 1.0, True  # The images are others now.
    monkeypatch.setattr('flamingo_jax.training.run.Progress', Progress)
    assert np.isfinite(train(config, tmp_path / 'run')['loss'])


def test_while_it_is_not_clear_whether_too_many_are_damaged_no_checkpoint_is_lost(parts, own, tmp_path, monkeypatch):
    """The window of a hundred batches is not full at the end of the run: what is saved then is beside all others."""
    config = config_of(parts, own)
    seen = after_step(monkeypatch, FAULT, lambda: damage(own))
    train(config, tmp_path / 'run')
    first = first_damaged(seen)
    last, *kept = steps(tmp_path / 'run/checkpoints')
    assert last == STEPS and len(kept) == 2 and max(kept) <= first + 4


@pytest.mark.long
def test_images_that_are_all_damaged_leave_nothing_to_learn(parts, tmp_path, monkeypatch):
    own = documents(tmp_path / 'own')
    config = config_of(parts, own)
    config.steps, config.max_skipped_steps = 40, 4
    seen = after_step(monkeypatch, FAULT, lambda: damage(own))
    with pytest.raises(DivergedError, match=r'nothing had a weight, in 4 steps in a row.*so many are damaged: ..own'):
        train(config, tmp_path / 'run')
    skipped = [step for step, metrics in seen.items() if metrics['skipped']]
    assert max(steps(tmp_path / 'run/checkpoints')) < min(skipped)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(read_latest(tmp_path / 'run')[1]))


def worker():
    (one,) = multiprocessing.active_children()
    return one


def test_a_worker_that_is_killed_ends_the_run(parts, own, tmp_path, undisturbed, monkeypatch):
    """As the kernel does where memory is short."""
    flags.FLAGS.mark_as_parsed()
    config = config_of(parts, own, workers=1)
    after_step(monkeypatch, FAULT, lambda: os.kill(worker().pid, signal.SIGKILL))
    with pytest.raises(ChildProcessError, match=r'ended by SIGKILL.*fewer workers, or the machine more memory'):
        train(config, tmp_path / 'run')
    assert_goes_on(config, tmp_path / 'run', undisturbed, monkeypatch)


@pytest.mark.long
def test_a_worker_that_is_stopped_ends_the_run(parts, own, tmp_path, undisturbed, monkeypatch, capfd):
    flags.FLAGS.mark_as_parsed()
    monkeypatch.setattr(pipeline, 'LOOKS', 3)
    monkeypatch.setattr(pipeline, 'BETWEEN', 0.1)
    config, stopped = config_of(parts, own, workers=1), []

    def stop():
        stopped.append(worker().pid)
        os.kill(stopped[0], signal.SIGSTOP)

    after_step(monkeypatch, FAULT, stop)
    with pytest.raises(ChildProcessError, match='ended by SIGKILL'):
        train(config, tmp_path / 'run')
    assert f'The process {stopped[0]}, which reads a data set, has been stopped' in capfd.readouterr().err
    assert_goes_on(config, tmp_path / 'run', undisturbed, monkeypatch)


@pytest.mark.long
def test_a_worker_without_memory_ends_the_run(parts, own, tmp_path, undisturbed, monkeypatch):
    """It may take no more than it has, and images become large."""
    flags.FLAGS.mark_as_parsed()
    config = config_of(parts, own, workers=1)
    small = shutil.copytree(own / 'images', own / 'small')
    PIL.Image.new('RGB', (9000, 9000)).save(own / 'large.png')

    def limit():
        used = int(pathlib.Path(f'/proc/{worker().pid}/statm').read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(worker().pid, resource.RLIMIT_AS, (used + 2**26, used + 2**26))
        for image in (own / 'images').iterdir():
            os.replace(shutil.copy(own / 'large.png', own / 'next'), image)

    after_step(monkeypatch, FAULT, limit)
    with pytest.raises(MemoryError, match=r'not enough memory to decode .*own/images/\d+.png'):
        train(config, tmp_path / 'run')
    shutil.copytree(small, own / 'images', dirs_exist_ok=True)
    assert_goes_on(config, tmp_path / 'run', undisturbed, monkeypatch)


def test_the_number_of_views_of_features_is_part_of_the_recipe(parts, own, tmp_path):
    """Other views in the same folder are other data."""
    config, trunk = config_of(parts, own), bundle.read(parts / 'trunk')
    config.steps, config.datasets.own.features = 2, str(tmp_path / 'features')
    features.compute(str(own / 'own.jsonl'), trunk, str(tmp_path / 'features'))
    train(config, tmp_path / 'run')
    features.compute(str(own / 'own.jsonl'), trunk, str(tmp_path / 'features'), views=2)
    config.steps = 4
    with pytest.raises(ValueError, match=r'datasets.own.views_of_features \(there 1, here 2\)'):
        train(config, tmp_path / 'run')
