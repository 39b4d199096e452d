"""Memory that is freed and taken again."""

import subprocess
import sys

import pytest

# 64 MB, written and freed five times: how many pages did the kernel have to give?
SCRIPT = """
import resource, sys
import numpy as np
from flamingo_jax import memory
if sys.argv[1] == 'keep':
    memory.keep_freed()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='of glibc')
def test_what_a_step_frees_the_next_one_takes_without_the_kernel():
    asked = {}
    for how in ('keep', 'return'):
        done = subprocess.run([sys.executable, '-c', SCRIPT, how], capture_output=True, text=True, check=True)
        asked[how] = int(done.stdout)
    assert asked['keep'] < asked['return'] / 20, asked
