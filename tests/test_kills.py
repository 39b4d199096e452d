"""Fault injection with few repeats; `python -m benchmarks.kills` does as many as one likes."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.long
def test_a_run_that_is_killed_ends_as_if_nothing_had_been():
    # One kill of each kind, soon after a start's first step: a run that ends before its kill would be made once more.
    how = ['--kills=4', '--steps=24', '--broken=2', '--seconds=0.5']
    command = [sys.executable, '-m', 'benchmarks.kills', *how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert '4 kills over' in done.stdout and 'are equal; 2 steps skipped' in done.stdout
