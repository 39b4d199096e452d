"""SIGTERM while a run validates or compiles: it ends soon, with what it has trained saved. Real processes."""

import argparse
import signal
import time

import pytest

from benchmarks.kills import Run


def started(parts, workdir, processes, *more, steps=10_000):
    arguments = argparse.Namespace(steps=steps, checkpoint_every=10_000, broken_steps=(), processes=processes)
    run = Run(parts, workdir, arguments, more=('--one_data_set', *more))
    run.start()
    return run


def wait(run, begun):
    while not begun():
        assert run.alive(), run.log(0).read_text()
        time.sleep(0.05)


@pytest.fixture
def own_parts(parts, tmp_path):
    """The parts in a folder in which the run keeps its compiled programs."""
    for part in parts.iterdir():
        (tmp_path / part.name).symlink_to(part)
    return tmp_path


@pytest.mark.long
def test_sigterm_in_a_validation_saves_the_step_before_it(own_parts, tmp_path):
    """The validation after the second step has no end. One of two processes is told."""
    run = started(own_parts, tmp_path / 'run', 2, '--validate_every', '2')
    wait(run, lambda: run.step() >= 1)
    time.sleep(3)  # Into the validation. If the machine is slow it is still before it, which must end as well.
    run.processes[-1].send_signal(signal.SIGTERM)
    assert run.wait() == [0, 0], run.log(0).read_text()
    (step,) = run.whole()
    assert step in (1, 2) and f'Stopped by SIGTERM after step {step}, which is saved' in run.log(0).read_text()


@pytest.mark.long
def test_sigterm_in_the_compilation_loses_nothing(own_parts, tmp_path):
    run = started(own_parts, tmp_path / 'run', 1)
    wait(run, (tmp_path / 'run/parameters.txt').is_file)  # The next thing is the first step, not yet compiled.
    run.processes[-1].send_signal(signal.SIGTERM)
    codes = run.wait()
    assert codes == [0] and run.whole() or codes == [-signal.SIGTERM], run.log(0).read_text()
    last = max(run.whole(), default=0) + 1
    again = started(own_parts, tmp_path / 'run', 1, steps=last)
    assert again.wait() == [0] and again.resumed() == last - 1 and again.whole()[0] == last
