import subprocess
import sys


def test_a_run_that_hangs_says_where_and_ends():
    """A process in which no step ends any more; and one that goes on after its last step."""
    program = """
import sys, time
from flamingo_jax.training.watchdog import Watchdog
with Watchdog(3.0) as watchdog:
    for _ in range(9):  # Together longer than the watchdog waits, and each by far not.
        watchdog.wait_anew()
        time.sleep(0.5)
    print('nine steps', flush=True)
    time.sleep(float(sys.argv[1]))
time.sleep(4)
print('the end')
"""
    command = [sys.executable, '-c', program]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    hangs, ends = (subprocess.Popen([*command, rest], **pipes) for rest in ('600', '0'))  # At once.
    said, why = hangs.communicate()
    assert hangs.returncode == 1 and said == 'nine steps\n'
    assert 'Timeout' in why and 'line 9 in <module>' in why
    said, _ = ends.communicate()
    assert ends.returncode == 0 and said == 'nine steps\nthe end\n'


def test_a_run_whose_first_step_hangs_ends_too():
    program = 'import time\nfrom flamingo_jax.training.watchdog import Watchdog\nwith Watchdog(1):\n    time.sleep(600)'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 1 and 'line 4 in <module>' in done.stderr
