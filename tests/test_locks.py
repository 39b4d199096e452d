"""Two processes never work in one folder, and a lock dies with its process: real processes, real kills."""

import contextlib
import signal
import subprocess
import sys
import time

import pytest

from flamingo_jax import files
from flamingo_jax.locks import alone
from tests.object_stores import STORES
from tests.tiny_run import ROOT

HOLDER = """
import itertools, sys, time
from flamingo_jax import files, locks
locks.RENEWED, locks.LEASE, locks.WATCHED = 0.2, float(sys.argv[2]), 0.05
if 'jumps' in sys.argv:
    jumps = itertools.cycle([0, 4e9, 1e5, 2e9])
    time.time = lambda: next(jumps)
with locks.alone(files.as_path(sys.argv[1])):
    print('held', flush=True)
    sys.stdin.read()
print('left', flush=True)
"""


class Holder:
    """A process that asks for a folder, and keeps it until it is told to leave."""

    def __init__(self, place, *how, lease=600):
        command = [sys.executable, '-c', HOLDER, str(place), str(lease), *how]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe, stderr=pipe)

    def holds(self):
        """Whether it gets the folder."""
        lines = iter(self.process.stdout.readline, '')
        return any(line == 'held\n' for line in lines)

    def said(self):
        """What it wrote on stderr, when it has ended or is told to leave."""
        return self.process.communicate(timeout=300)[1]


@contextlib.contextmanager
def holder(*arguments, **how):
    one = Holder(*arguments, **how)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.communicate()


@pytest.fixture(params=['disk', *STORES])
def place(request, tmp_path):
    """A folder that does not exist."""
    if request.param == 'disk':
        yield tmp_path / 'run'
    else:
        place = files.as_path(STORES[request.param]().url) / 'locked'
        yield place
        files.remove(place)


def test_the_second_is_told_who_is_the_first_and_the_first_goes_on(place):
    with holder(place, 'jumps') as first:
        assert first.holds()
        for _ in range(2):
            with holder(place, 'jumps') as second:
                assert not second.holds()
                said = second.said()
                assert f'{place} is in use by process {first.process.pid} on ' in said and 'Wait until' in said
        assert first.process.poll() is None and first.said() is not None and first.process.returncode == 0
    assert not files.below(place)
    with holder(place) as third:
        assert third.holds()


def test_a_lock_dies_with_its_process(place):
    with holder(place) as first:
        assert first.holds()
        first.process.kill()
        first.process.wait()
        with holder(place) as second:  # Of this machine it is known to be dead: nobody waits.
            assert second.holds()


@pytest.mark.parametrize('name', STORES)
def test_who_stood_still_for_too_long_ends_when_another_has_the_lease(name):
    place = files.as_path(STORES[name]().url) / 'locked'
    with holder(place) as first:
        assert first.holds()
        first.process.send_signal(signal.SIGSTOP)
        with holder(place, lease=1) as second:
            assert second.holds()
            first.process.send_signal(signal.SIGCONT)
            assert first.process.wait(timeout=300) == 1
            assert f'lost its lease. {place} is in use by process {second.process.pid}' in first.said()
            assert second.said() is not None and second.process.returncode == 0
    files.remove(place)


def test_of_one_process_a_second_is_refused_and_the_lock_stays(tmp_path):
    with alone(tmp_path / 'run'):
        with pytest.raises(ValueError, match='is in use by process'), alone(tmp_path / 'run'):
            pass
        with holder(tmp_path / 'run') as other:
            assert not other.holds()
    assert not (tmp_path / 'run').exists()  # It was made for the lock, and is empty.
    with alone(tmp_path / 'a/model', beside=True):
        assert not (tmp_path / 'a/model').exists() and (tmp_path / 'a/.model.lock').exists()
    assert not (tmp_path / 'a').exists()


@pytest.mark.long
def test_a_run_that_is_started_twice_runs_once(parts, tmp_path):
    """The same command, while the first trains and, once that was killed, again."""
    command = [sys.executable, str(ROOT / 'tests/tiny_run.py'), str(parts), str(tmp_path / 'run')]
    folder, log = tmp_path / 'run/checkpoints', tmp_path / 'log'

    def start(steps):
        with open(log, 'w') as file:
            return subprocess.Popen([*command, str(steps)], cwd=ROOT, stdout=file, stderr=file)

    def finished():
        return {int(entry.name) for entry in folder.glob('*') if entry.name.isdecimal()}

    first = start(100_000)
    try:
        while not finished():
            assert first.poll() is None, log.read_text()
            time.sleep(0.1)
        second = start(100_000)
        assert second.wait(timeout=300) == 1 and f'is in use by process {first.pid} on ' in log.read_text()
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    last = max(finished())
    third = start(last + 1)
    assert third.wait(timeout=300) == 0 and f'Resumed from step {last}' in log.read_text(), log.read_text()
