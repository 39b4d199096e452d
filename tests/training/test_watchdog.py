import subprocess
import sys


def test_a_run_that_hangs_says_where_and_ends():
    """A process in which no step ends any more; and one that goes on after its last step."""
    program = """
import sys, time
from flamingo_jax.training.watchdog import Watchdog
with Watchdog(3.0) as watchdog:
    for _ in range(3):
        watchdog.wait_anew()
        time.sleep(1.5)
    print('three steps', flush=True)
    time.sleep(float(sys.argv[1]))
time.sleep(4)
print('the end')
"""
    hangs, ends = (
        subprocess.run([sys.executable, '-c', program, rest], capture_output=True, text=True) for rest in ('60', '0')
    )
    assert hangs.returncode == 1 and hangs.stdout == 'three steps\n'
    assert 'Timeout' in hangs.stderr and 'line 9 in <module>' in hangs.stderr
    assert ends.returncode == 0 and ends.stdout == 'three steps\nthe end\n'


def test_a_run_whose_first_step_hangs_ends_too():
    program = 'import time\nfrom flamingo_jax.training.watchdog import Watchdog\nwith Watchdog(1):\n    time.sleep(60)'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 1 and 'line 4 in <module>' in done.stderr
