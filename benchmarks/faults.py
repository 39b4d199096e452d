"""Injects faults into training runs, with real processes, and shows that each is told or survived and loses nothing.

    python -m benchmarks.faults [--faults=50] [--seed=0] [--kinds=KIND,KIND] [--workdir=DIR]

The run is that of tests/tiny_run.py. Each fault strikes a run of its own, at a random moment after its first
checkpoint: the file system (a disk that is full for good, or for a while), one of two processes (killed, stopped), a
frozen file (bytes changed or cut off between two starts), a data worker (killed, stopped), or a bucket (that fails for
good, for a while, or cuts its answers). Each kind is drawn equally often.

Then either the run goes on to its end, or all its processes end with an exit code other than 0 and a message that names
the thing. The newest checkpoint that was whole before must be there afterwards, or a newer one. The same command
without the fault must end with the parameters of a run without faults, bit for bit. Exit code 1 means that a check
failed.
"""

import argparse
import collections
import contextlib
import dataclasses
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable

from benchmarks.kills import Run

PATIENCE = 600  # Seconds after which a run hangs.
FULL = 60_000  # Bytes: the log still grows, and no checkpoint is written.
HANG = '20'  # Seconds after which a run whose data do not come ends itself.


@dataclasses.dataclass
class Struck:
    """What a fault did."""

    said: str  # What the run must say if it does not survive; a regular expression.
    mend: Callable[[], None] = lambda: None  # Ends the fault.
    restarts: bool = False  # The run was stopped, and meets the fault when it starts.


def full_disk(run: Run, rng: random.Random) -> Struck:
    """No file can become as large as a checkpoint is."""
    _limit(run, FULL)
    return Struck('could not be written to .*checkpoints.*|File too large')


def full_disk_for_a_while(run: Run, rng: random.Random) -> Struck:
    """The same, until the run has said so."""
    _limit(run, FULL)
    _wait(lambda: 'could not be written' in run.log(0).read_text() or not run.alive())
    _limit(run, resource.RLIM_INFINITY)
    return Struck('could not be written to .*checkpoints')


def process_killed(run: Run, rng: random.Random) -> Struck:
    """One of two."""
    rng.choice(run.processes).kill()
    return Struck('unhealthy|heartbeat|leader|Connection|closed')


def process_stopped(run: Run, rng: random.Random) -> Struck:
    """One of two; it is killed at last, as a machine that hangs."""
    one = rng.choice(run.processes)
    one.send_signal(signal.SIGSTOP)
    _wait(lambda: sum(process.poll() is None for process in run.processes) == 1)
    one.kill()
    return Struck('unhealthy|heartbeat|leader|Connection|closed')


def frozen_file_changed(run: Run, rng: random.Random) -> Struck:
    """64 bytes of the language model, between two starts."""
    return _damage_frozen(run, lambda content, at: content[:at] + b'\x7f' * 64 + content[at + 64 :], rng)


def frozen_file_cut(run: Run, rng: random.Random) -> Struck:
    """The end of the language model's file, between two starts."""
    return _damage_frozen(run, lambda content, at: content[:at], rng)


def worker_killed(run: Run, rng: random.Random) -> Struck:
    """A process that reads the data."""
    os.kill(rng.choice(_workers(run)), signal.SIGKILL)
    return Struck('[Ww]orker|Grain|process')


def worker_stopped(run: Run, rng: random.Random) -> Struck:
    """A process that reads the data does nothing any more."""
    os.kill(rng.choice(_workers(run)), signal.SIGSTOP)
    return Struck('Timeout|[Ww]orker')


def bucket_fails(run: Run, rng: random.Random) -> Struck:
    """No request succeeds any more."""
    return _fail_bucket(1.0, rng.choice(['503', 'reset']))


def bucket_fails_for_a_while(run: Run, rng: random.Random) -> Struck:
    """A fifth of the requests fails, for some seconds."""
    struck = _fail_bucket(0.2, rng.choice(['503', '500', 'reset', 'late']))
    time.sleep(rng.uniform(1, 5))
    struck.mend()
    return struck


def bucket_cuts(run: Run, rng: random.Random) -> Struck:
    """A tenth of the answers ends in the middle, for some seconds."""
    struck = _fail_bucket(0.1, 'cut')
    time.sleep(rng.uniform(1, 5))
    struck.mend()
    return struck


KINDS = {
    kind.__name__: kind
    for kind in (full_disk, full_disk_for_a_while, process_killed, process_stopped, frozen_file_changed)
    + (frozen_file_cut, worker_killed, worker_stopped, bucket_fails, bucket_fails_for_a_while, bucket_cuts)
}


def _limit(run: Run, size: int) -> None:
    for process in run.processes:
        with contextlib.suppress(ProcessLookupError):
            _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, hard))


def _damage_frozen(run: Run, change: Callable[[bytes, int], bytes], rng: random.Random) -> Struck:
    for process in run.processes:
        process.kill()
    run.wait()
    file = max((run.parts / 'lm').rglob('*'), key=lambda one: one.stat().st_size if one.is_file() else -1)
    content = file.read_bytes()
    file.write_bytes(change(content, rng.randrange(len(content) // 2, len(content) - 64)))
    return Struck(re.escape(file.name) + '|/lm', lambda: file.write_bytes(content) and None, restarts=True)


def _workers(run: Run) -> list[int]:
    """The processes that read data for a run's first process."""
    found = []
    for folder in pathlib.Path('/proc').iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((folder / 'stat').read_text().rpartition(')')[2].split()[1])
            line = (folder / 'cmdline').read_bytes()
            if parent == run.processes[0].pid and b'spawn_main' in line:
                found.append(int(folder.name))
    return sorted(found)


def _fail_bucket(probability: float, how: str) -> Struck:
    store = _bucket()
    store.failures, store.how = probability, how
    return Struck('gs://bucket', lambda: setattr(store, 'failures', 0.0))


def _bucket():
    from tests.object_stores import STORES

    return STORES['gs']()


def _wait(until: Callable[[], bool]) -> bool:
    """Whether it came true while there was patience."""
    end = time.monotonic() + PATIENCE
    while not (true := until()) and time.monotonic() < end:
        time.sleep(0.05)
    return true


def _whole(run: Run) -> int:
    """The step of the newest finished checkpoint; 0 if there is none."""
    from flamingo_jax.files import as_path
    from flamingo_jax.inference.run import steps

    return max(steps(as_path(run.place or run.workdir) / 'checkpoints'), default=0)


def inject(kind: str, run: Run, rng: random.Random) -> tuple[str, list[str]]:
    """Starts a run, strikes it, and resumes it. Returns what became of it, and the failed checks."""
    run.start()
    if not _wait(lambda: not run.alive() or (_whole(run) > 0 and run.step() > run.resumed())):
        return 'hangs', ['it did not begin']
    time.sleep(rng.uniform(0, 2))
    before = _whole(run)
    if not run.alive():
        return 'ended', [f'it ended before the fault: {_end_of_logs(run)}']
    struck = KINDS[kind](run, rng)
    if struck.restarts:
        run.start()
    processes, wrong = list(run.processes), []
    if not _wait(lambda: all(process.poll() is not None for process in processes)):
        wrong.append(f'it hangs: {_end_of_logs(run)}')
        for process in processes:
            process.kill()
    codes = run.wait()
    logs = ''.join(run.log(i).read_text(errors='replace') for i in range(len(codes)))
    told = all(codes) and re.search(struck.said, logs) is not None
    became = 'survived' if not any(codes) else 'told' if told else 'WRONG'
    if became == 'WRONG':
        wrong.append(f'exit codes {codes}, and it says: {_end_of_logs(run)}')
    struck.mend()
    after = _whole(run)
    if after < before:
        wrong.append(f'the checkpoint of step {before} is lost; the newest is {after}')
    run.start()
    if any(run.wait()):
        wrong.append(f'it did not resume: {_end_of_logs(run)}')
    return became, wrong


def _end_of_logs(run: Run) -> str:
    return ' | '.join(log.read_text(errors='replace')[-600:] for log in sorted(run.workdir.glob('process_*.log')))


def _same(run: Run, whole: Run) -> list[str]:
    import jax
    import numpy as np

    from flamingo_jax.inference.run import read_latest

    (_, got, step), (_, expected, last) = read_latest(run.place or run.workdir), read_latest(whole.workdir)
    if step != last:
        return [f'it ended at step {step}']
    equal = jax.tree.all(jax.tree.map(np.array_equal, got, expected))
    return [] if equal else ['the last parameters differ']


def _prepare(kind: str, number: int, folder: pathlib.Path, arguments: argparse.Namespace) -> Run:
    """A new run for one fault."""
    parts, more, place = folder / 'parts', (), ''
    arguments = argparse.Namespace(**vars(arguments) | dict(processes=2 if kind.startswith('process') else 1))
    if kind.startswith('frozen'):
        parts = folder / f'parts_{number}'
        shutil.copytree(folder / 'parts', parts)
    elif kind.startswith('worker'):
        more = ('--workers', '1', '--hang_seconds', HANG)
    elif kind.startswith('bucket'):
        place = f'{_bucket().url}/run_{number}'
    return Run(parts, folder / f'run_{number}_{kind}', arguments, more=more, place=place)


def main() -> int:
    """Injects the faults and prints a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--faults', type=int, default=50)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kinds', default=','.join(KINDS), help='default: all')
    parser.add_argument('--steps', type=int, default=60)
    parser.add_argument('--checkpoint_every', type=int, default=3)
    parser.add_argument('--workdir', type=pathlib.Path, help='folder, which is emptied; default: a temporary one')
    arguments = parser.parse_args()
    arguments.broken_steps = []
    kinds = arguments.kinds.split(',')
    if unknown := set(kinds) - KINDS.keys():
        parser.error(f'no such kinds: {sorted(unknown)}. There are {", ".join(KINDS)}.')
    from tests.tiny_run import make_parts

    folder = arguments.workdir or pathlib.Path(tempfile.mkdtemp())
    shutil.rmtree(folder, ignore_errors=True)
    make_parts(folder / 'parts')
    # A run of two processes adds in another order.
    wholes: dict[int, Run] = {}
    rng, left, failed, began = random.Random(arguments.seed), collections.deque(), 0, time.monotonic()
    print(f'{"fault":>5}  {"kind":26}  {"became":9}  seconds  minutes left', flush=True)
    for number in range(1, arguments.faults + 1):
        if not left:
            left.extend(rng.sample(kinds, len(kinds)))
        kind, since = left.popleft(), time.monotonic()
        run = _prepare(kind, number, folder, arguments)
        n = run.arguments.processes
        if n not in wholes:
            wholes[n] = Run(folder / 'parts', folder / f'whole_{n}', run.arguments)
            wholes[n].start()
            if any(wholes[n].wait()):
                raise SystemExit(f'The run without faults failed: {_end_of_logs(wholes[n])}')
        became, wrong = inject(kind, run, rng)
        wrong = wrong or _same(run, wholes[n])
        failed += bool(wrong)
        now = time.monotonic()
        minutes = (now - began) / number * (arguments.faults - number) / 60
        print(f'{number:5}  {kind:26}  {became:9}  {now - since:7.0f}  {minutes:12.1f}', flush=True)
        for line in wrong:
            print('WRONG:', line, flush=True)
    print(f'{arguments.faults - failed} of {arguments.faults} faults were told or survived, and lost nothing.')
    if not arguments.workdir:
        shutil.rmtree(folder)
    return bool(failed)


if __name__ == '__main__':
    sys.exit(main())
