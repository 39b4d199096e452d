"""One fault; `python -m benchmarks.faults` draws as many as one likes, of all kinds."""

import subprocess
import sys

import pytest

from tests.tiny_run import ROOT


@pytest.mark.long
def test_a_run_whose_frozen_model_was_changed_says_so_and_loses_nothing():
    command = [sys.executable, '-m', 'benchmarks.faults', '--faults=1', '--steps=30', '--kinds=frozen_file_changed']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert '1 of 1 faults were told or survived' in done.stdout
