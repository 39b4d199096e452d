"""Injects faults into training runs, with real processes, and shows that each is told or survived and loses nothing.

    python -m benchmarks.faults [--faults=50] [--seed=0] [--kinds=KIND,KIND] [--workdir=DIR]

The run is that of tests/tiny_run.py, on 16 images of its own. Each fault strikes a run of its own, after its first
checkpoint and a random step, while all its processes stand still (SIGSTOP), so that it is known what was whole: the
file system (a disk that is full, images that are gone, an I/O error, no file handles), one of two processes (killed,
stopped, with other images than the other), a frozen file (changed or cut off between two starts), a data worker
(killed, stopped, without memory), or a bucket (that fails, or cuts its answers). Each kind is drawn equally often.

Then either the run goes on to its end, or all its processes end with an exit code other than 0 and a message that names
the thing. The newest checkpoint that was whole before must be there afterwards, or a newer one. The same command
without the fault must resume from it, and end with the parameters of a run without faults, bit for bit.

`late` is the number of steps from the first that the fault touched to the one after which it was told. A step is
touched if its loss is not that of the run without faults, or if its checkpoint could not be written; in a bucket, from
the last request on that failed, since clients try again. 0: nothing was trained on it. `-`: nobody needed to be told.
Exit code 1 means that a check failed; a fault that was told more than one step late fails.
"""

import argparse
import bisect
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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import PIL.Image

from benchmarks.kills import Run
from tests.own_data import break_disk, documents, repair_disk

HANGS = 600  # Seconds after which a run hangs.
FULL = 60_000  # Bytes: the log still grows, and no checkpoint is written.
# See tests/tiny_run.py. A step takes about as long as one of a model that is worth a checkpoint, so that writing one
# takes less, on a busy machine too.
PACE, PATIENCE = '0.7', '30'
NOT_WRITTEN = r'The checkpoint of step (\d+) could not be written to '
DEAD = 'unhealthy|heartbeat|leader|Connection|closed'


@dataclasses.dataclass
class Struck:
    """What a fault did."""

    said: str  # What the run must say if it does not survive; a regular expression.
    mend: Callable[[], None] = lambda: None  # Ends the fault.
    restarts: bool = False  # The run was killed, and meets the fault when it starts.
    stopped: subprocess.Popen | None = None  # The process that stays stopped.
    ends: Callable[[Run], bool] | None = None  # When to mend it while the run goes on; None: after its end.


def full_disk(run: Run, rng: random.Random) -> Struck:
    """No file can become as large as a checkpoint is."""
    _limit(run, resource.RLIMIT_FSIZE, FULL)
    return Struck(NOT_WRITTEN)


def full_disk_for_a_while(run: Run, rng: random.Random) -> Struck:
    """The same, until the run has said so."""
    _limit(run, resource.RLIMIT_FSIZE, FULL)
    mend = lambda: _limit(run, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)  # noqa: E731
    return Struck(NOT_WRITTEN, mend, ends=_says_so)


def images_unmounted(run: Run, rng: random.Random) -> Struck:
    """Their folder is away."""
    images = _own(run) / 'images'
    images.rename(images.with_name('away'))
    return Struck(r'No such file.*images/\d+\.png', lambda: images.with_name('away').rename(images) and None)


def images_unreadable(run: Run, rng: random.Random) -> Struck:
    """Their disk answers with EIO."""
    break_disk(_own(run))
    return Struck(r'Errno 5.*images/\d+\.png', lambda: repair_disk(_own(run)))


def images_unreadable_for_a_while(run: Run, rng: random.Random) -> Struck:
    """The same, for less time than a read is tried again."""
    break_disk(_own(run))
    return Struck('', lambda: repair_disk(_own(run)), ends=_after(rng.uniform(1, 8)))


def no_file_handles(run: Run, rng: random.Random) -> Struck:
    """No file can be opened any more."""
    _limit(run, resource.RLIMIT_NOFILE, 3)
    return Struck('Too many open files')


def process_killed(run: Run, rng: random.Random) -> Struck:
    """One of two."""
    rng.choice(run.processes).kill()
    return Struck(DEAD)


def process_stopped(run: Run, rng: random.Random) -> Struck:
    """One of two, which is killed when the other has ended, as a machine that hangs."""
    one = rng.choice(run.processes)
    others_ended = lambda run: sum(process.poll() is None for process in run.processes) == 1  # noqa: E731
    return Struck(DEAD, one.kill, stopped=one, ends=others_ended)


def process_with_other_images(run: Run, rng: random.Random) -> Struck:
    """One of two that hold the same rows finds other images under the same names."""
    images = _own(run, rng.randrange(2)) / 'images'
    good = images.rename(images.with_name('good'))
    images.mkdir()
    for image in good.iterdir():
        PIL.Image.new('RGB', (8, 8), (0, 0, rng.randrange(1, 256))).save(images / image.name)
    return Struck('The processes have parted: data set own: row', lambda: shutil.rmtree(images) or good.rename(images))


def frozen_file_changed(run: Run, rng: random.Random) -> Struck:
    """64 bytes of the language model, between two starts."""
    return _damage_frozen(run, lambda content, at: content[:at] + b'\x7f' * 64 + content[at + 64 :], rng)


def frozen_file_cut(run: Run, rng: random.Random) -> Struck:
    """The end of the language model's file, between two starts."""
    return _damage_frozen(run, lambda content, at: content[:at], rng)


def worker_killed(run: Run, rng: random.Random) -> Struck:
    """A process that reads the data."""
    os.kill(_worker(run), signal.SIGKILL)
    return Struck('`workers`.* ended by SIGKILL')


def worker_stopped(run: Run, rng: random.Random) -> Struck:
    """A process that reads the data does nothing any more."""
    os.kill(_worker(run), signal.SIGSTOP)
    return Struck('reads a data set, has been stopped.*ended by SIGKILL')


def worker_without_memory(run: Run, rng: random.Random) -> Struck:
    """A process that reads the data may take 64 MB more, and the images become large."""
    worker, images = _worker(run), _own(run) / 'images'
    used = int(pathlib.Path(f'/proc/{worker}/statm').read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(worker, resource.RLIMIT_AS, (used + 2**26, used + 2**26))
    good = shutil.copytree(images, images.with_name('good'))
    for image in good.iterdir():  # One after the other, so that none is missing at any time.
        link = good.with_name('link')
        link.symlink_to(_own(run) / 'large.png')
        link.replace(images / image.name)
    return Struck(
        r'not enough memory to decode .*images/\d+\.png',
        lambda: [image.replace(images / image.name) for image in good.iterdir()] and good.rmdir(),
    )


def bucket_fails(run: Run, rng: random.Random) -> Struck:
    """No request succeeds any more, until the run has said so: clients try again for minutes before it ends."""
    return _fail_bucket(1.0, rng.choice(['503', 'reset']), _says_so)


def bucket_fails_for_a_while(run: Run, rng: random.Random) -> Struck:
    """A fifth of the requests fails, for some seconds."""
    return _fail_bucket(0.2, rng.choice(['503', '500', 'reset', 'late']), _after(rng.uniform(1, 5)))


def bucket_cuts(run: Run, rng: random.Random) -> Struck:
    """A tenth of the answers ends in the middle, for some seconds."""
    return _fail_bucket(0.1, 'cut', _after(rng.uniform(1, 5)))


KINDS = {
    kind.__name__: kind
    for kind in (full_disk, full_disk_for_a_while, images_unmounted, images_unreadable, images_unreadable_for_a_while)
    + (no_file_handles, process_killed, process_stopped, process_with_other_images)
    + (frozen_file_changed, frozen_file_cut, worker_killed, worker_stopped, worker_without_memory)
    + (bucket_fails, bucket_fails_for_a_while, bucket_cuts)
}


def _limit(run: Run, what: int, most: int) -> None:
    for process in run.processes:
        with contextlib.suppress(ProcessLookupError):
            _, hard = resource.prlimit(process.pid, what)
            resource.prlimit(process.pid, what, (most, hard))


def _own(run: Run, process: int = 0) -> pathlib.Path:
    return run.parts.with_name('own') / str(process)


def _damage_frozen(run: Run, change: Callable[[bytes, int], bytes], rng: random.Random) -> Struck:
    for process in run.processes:
        process.kill()
    run.wait()
    file = max((run.parts / 'lm').rglob('*'), key=lambda one: one.stat().st_size if one.is_file() else -1)
    content = file.read_bytes()
    file.write_bytes(change(content, rng.randrange(len(content) // 2, len(content) - 64)))
    return Struck(re.escape(file.name) + '|/lm', lambda: file.write_bytes(content) and None, restarts=True)


def _worker(run: Run) -> int:
    """The process that reads data for a run's first process."""
    for folder in pathlib.Path('/proc').iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((folder / 'stat').read_text().rpartition(')')[2].split()[1])
            if parent == run.processes[0].pid and b'spawn_main' in (folder / 'cmdline').read_bytes():
                return int(folder.name)
    raise RuntimeError('The run has no worker.')


def _says_so(run: Run) -> bool:
    return 'could not be written' in run.log(0).read_text(errors='replace')


def _after(seconds: float) -> Callable[[Run], bool]:
    end = time.monotonic() + seconds
    return lambda run: time.monotonic() > end


def _fail_bucket(probability: float, how: str, ends: Callable[[Run], bool]) -> Struck:
    store = _bucket()
    store.failures_of.clear()
    store.failures, store.how = probability, how
    return Struck('gs://bucket', lambda: setattr(store, 'failures', 0.0), ends=ends)


def _bucket():
    from tests.object_stores import STORES

    return STORES['gs']()


def _wait(until: Callable[[], bool]) -> bool:
    """Whether it came true before one loses patience."""
    end = time.monotonic() + HANGS
    while not (true := until()) and time.monotonic() < end:
        time.sleep(0.02)
    return true


def _whole(run: Run) -> int:
    """The step of the newest finished checkpoint; 0 if there is none."""
    from flamingo_jax.checkpoints.run_format import steps
    from flamingo_jax.files import as_path

    return max(steps(as_path(run.place or run.workdir) / 'checkpoints'), default=0)


def _signal(run: Run, name: signal.Signals, but: subprocess.Popen | None = None) -> None:
    for process in run.processes:
        if process is not but:
            process.send_signal(name)


@dataclasses.dataclass
class Injected:
    """What became of a run with a fault."""

    became: str = 'WRONG'
    step: int = 0  # The last that was told when the fault struck.
    late: int | None = None  # Steps; None: nothing was to be told.
    seconds: float = 0.0  # From the strike to the end of the run.
    wrong: list[str] = dataclasses.field(default_factory=list)  # Failed checks.


def inject(kind: str, run: Run, whole: Run, rng: random.Random) -> Injected | None:
    """Starts a run, strikes it, and resumes it. None if it was faster than the fault."""
    at = rng.randint(4, 10)
    run.start()
    began = _wait(lambda: not run.alive() or (run.step() >= at and _whole(run) > 0))
    if not run.alive() or not began:
        _signal(run, signal.SIGKILL)
        well = began and not any(run.wait())
        return None if well else Injected(wrong=[f'it did not come so far: {_end_of_logs(run)}'])
    _signal(run, signal.SIGSTOP)
    before, done, since = _whole(run), Injected(step=run.step()), time.monotonic()
    struck = KINDS[kind](run, rng)
    _signal(run, signal.SIGCONT, but=struck.stopped)
    if struck.restarts:
        run.start()
    mends = contextlib.ExitStack()
    mends.callback(struck.mend)

    shown = []  # When each step was shown.

    def ended() -> bool:
        if (step := run.step()) >= len(shown):
            shown.extend([time.monotonic()] * (step + 1 - len(shown)))
        if struck.ends is not None and struck.ends(run):
            mends.close()
        return all(process.poll() is not None for process in run.processes)

    with mends:
        if not _wait(ended):
            done.wrong.append(f'it hangs: {_end_of_logs(run)}')
            _signal(run, signal.SIGKILL)
        codes, done.seconds = run.wait(), time.monotonic() - since
    _judge(done, run, whole, struck, codes, shown)
    if (after := _whole(run)) < before:
        done.wrong.append(f'the checkpoint of step {before} is lost; the newest is {after}')
    run.start()
    if any(run.wait()):
        done.wrong.append(f'it did not resume: {_end_of_logs(run)}')
    elif (resumed := run.resumed()) < before:
        done.wrong.append(f'it resumed from step {resumed}, though that of step {before} was whole')
    done.wrong += _same(run, whole)
    return done


def _judge(done: Injected, run: Run, whole: Run, struck: Struck, codes: list[int], shown: list[float]) -> None:
    """Notes whether a run that has ended told of its fault, and how late. shown: when each step was shown."""
    from tests.tiny_run import losses

    logs = ''.join(run.log(i).read_text(errors='replace') for i in range(len(codes)))
    if not any(codes):
        done.became = 'survived'
    elif all(codes) and re.search(struck.said, logs, re.DOTALL):
        done.became = 'told'
    else:
        done.wrong.append(f'exit codes {codes}, and it says: {_end_of_logs(run)}')
    expected, got = dict(losses(whole.workdir)), losses(run.workdir)
    touched = [step for step, loss in got if loss != expected[step]]
    if not_written := re.search(NOT_WRITTEN, logs):
        first = int(not_written[1])
        told = int(re.findall(r'(\d+)/\d+ \[', logs[: not_written.start()])[-1]) + 1  # Steps are shown one late.
        told = min(told, first + run.arguments.checkpoint_every)  # No step is trained while one waits for the write.
        if run.place:  # Its client tries again until this request.
            failures = [when for text, when in _bucket().failures_of.items() if f'checkpoints/{first}/' in text]
            first = max(first, bisect.bisect(shown, max(failures, default=0)))
        done.late = max(told - first, 0)
    elif done.became != 'survived' or touched:
        done.late = got[-1][0] - touched[0] + 1 if touched else 0
    if (done.late or 0) > 1:
        done.wrong.append(f'it was told {done.late} steps late')


def _end_of_logs(run: Run) -> str:
    return ' | '.join(log.read_text(errors='replace')[-600:] for log in sorted(run.workdir.glob('process_*.log')))


def _same(run: Run, whole: Run) -> list[str]:
    import jax
    import numpy as np

    from flamingo_jax.checkpoints.run_format import read_latest

    (_, got, step), (_, expected, last) = read_latest(run.place or run.workdir), read_latest(whole.workdir)
    if step != last:
        return [f'it ended at step {step}']
    equal = jax.tree.all(jax.tree.map(np.array_equal, got, expected))
    return [] if equal else ['the last parameters differ']


def _run(folder: pathlib.Path, name: str, kind: str, arguments: argparse.Namespace) -> Run:
    """A new run for a kind of fault."""
    n = 2 if kind.startswith('process') else 1
    more = ('--own', str(folder / 'own'), '--pace', PACE, '--patience', PATIENCE)
    more += ('--mesh', '1', '1', str(n))  # Two processes hold the same rows.
    more += ('--workers', '1') if kind.startswith('worker') else ()
    place = f'{_bucket().url}/{name}' if kind.startswith('bucket') else ''
    arguments = argparse.Namespace(**vars(arguments), processes=n)
    return Run(folder / 'parts', folder / name, arguments, more=more, place=place)


def main() -> int:
    """Injects the faults and prints a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--faults', type=int, default=50)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kinds', default=','.join(KINDS), help='default: all')
    parser.add_argument('--steps', type=int, default=30)
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
    for i in range(2):
        own = documents(folder / f'own/{i}')
        PIL.Image.new('RGB', (9000, 9000)).save(own / 'large.png')
    wholes: dict[int, Run] = {}  # By number of processes: two add in another order.
    rng, left, every, began = random.Random(arguments.seed), collections.deque(), [], time.monotonic()
    print(f'{"fault":>5}  {"kind":30}  {"after step":>10}  {"became":8}  {"late":>4}  seconds, in all  minutes left')
    while len(every) < arguments.faults:
        if not left:
            left.extend(rng.sample(kinds, len(kinds)))
        kind, since, number = left[0], time.monotonic(), len(every) + 1
        run = _run(folder, f'run_{number}_{kind}', kind, arguments)
        n = run.arguments.processes
        if n not in wholes:
            wholes[n] = _run(folder, f'whole_{n}', 'process' if n == 2 else '', arguments)
            wholes[n].start()
            if any(wholes[n].wait()):
                raise SystemExit(f'The run without faults failed: {_end_of_logs(wholes[n])}')
        done = inject(kind, run, wholes[n], rng)
        if done is None:
            shutil.rmtree(run.workdir)
            continue
        left.popleft()
        every.append((kind, done))
        now = time.monotonic()
        minutes = (now - began) / number * (arguments.faults - number) / 60
        late = '-' if done.late is None else done.late
        row = f'{number:5}  {kind:30}  {done.step:10}  {done.became:8}  {late:>4}'
        print(f'{row}  {done.seconds:7.0f}  {now - since:6.0f}  {minutes:12.1f}', flush=True)
        for line in done.wrong:
            print('WRONG:', line, flush=True)
    good = sum(not done.wrong for _, done in every)
    _print_table(every)
    print(f'{good} of {len(every)} faults were told or survived, and lost nothing.')
    if not arguments.workdir:
        shutil.rmtree(folder)
    return good < len(every)


def _print_table(every: list[tuple[str, Injected]]) -> None:
    """By kind."""
    print(f'\n{"kind":30}  struck  told  survived  at most late  good')
    for kind in KINDS:
        if of_kind := [done for name, done in every if name == kind]:
            became = collections.Counter(done.became for done in of_kind)
            late = max((done.late for done in of_kind if done.late is not None), default='-')
            good = sum(not done.wrong for done in of_kind)
            print(f'{kind:30}  {len(of_kind):6}  {became["told"]:4}  {became["survived"]:8}  {late:>12}  {good:4}')


if __name__ == '__main__':
    sys.exit(main())
