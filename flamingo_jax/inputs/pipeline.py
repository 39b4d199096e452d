"""Sources -> rows -> Grain -> batches on the mesh.

The data depends on the seed and the position alone: row i has its own random generator. So a run can resume in the
middle of an epoch, and the number of workers or processes does not change what is trained on.
"""

import dataclasses
import errno
import functools
import multiprocessing
import os
import pathlib
import pickle
import re
import signal
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from multiprocessing import resource_tracker
from typing import Any, cast

import grain.python as grain
import jax
import numpy as np

from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.rows import Batch, Row
from flamingo_jax.inputs.sources.source import ENDLESS, Source
from flamingo_jax.inputs.tokenizer import Tokenizer

# Without workers: threads, each of which makes a batch, and finished batches that wait.
THREADS, AHEAD = 4, 8
# Batches of each worker, in shared memory: one that it makes, one that waits, and two in the thread that takes them.
OF_WORKER = 4
# A worker that somebody stopped (SIGSTOP) would be waited for until `config.hang_seconds` are over. After so many looks
# at it, so many seconds apart, it is killed.
LOOKS, BETWEEN = 12, 5.0


def rows(source: Source, tokenizer: Tokenizer, image_format: ImageFormat, seed: int) -> grain.MapDataset:
    """The endless rows of one data set, in their final order.

    Args:
      source: the data set.
      tokenizer: the model's.
      image_format: how the model takes images.
      seed: for the order and for random choices.

    Raises:
      FileNotFoundError, ValueError: those of the data set, before anything is read.
    """
    source.empty_row(tokenizer, image_format)  # Raises if the config itself is wrong.
    opened, blank = source.open(image_format), source.blank(image_format)
    source.check(opened, tokenizer)
    documents = grain.MapDataset.range(len(opened)).seed(seed)
    if len(opened) != ENDLESS:
        documents = documents.shuffle().repeat()
    if source.documents > 1:
        documents = documents.batch(source.documents)
    return documents.random_map(functools.partial(_row, source, opened, tokenizer, blank))


def _row(source, opened, tokenizer, blank, index: int | np.ndarray, rng: np.random.Generator) -> Row:
    """The row of one document, or of several that are packed."""
    documents = (opened.document(int(i), rng) for i in np.atleast_1d(index))  # Each is read only if there is room.
    return source.make_row(documents, tokenizer, blank, rng)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Some rows of each batch, one after the other."""

    every: grain.MapDataset
    batch_size: int
    chosen: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.every) // self.batch_size * len(self.chosen)

    def __getitem__(self, index: int) -> Row:
        batch, row = divmod(index, len(self.chosen))
        try:
            return cast(Row, self.every[batch * self.batch_size + self.chosen[row]])
        except Exception as error:
            if _is_portable(error):
                raise
            raise RuntimeError(f'{type(error).__name__}: {error}') from error


def _is_portable(error: Exception) -> bool:
    """Whether an error arrives in the process that trains. For one that cannot be pickled it would wait forever."""
    try:
        return isinstance(pickle.loads(pickle.dumps(error)), type(error))
    except Exception:  # Of whoever wrote that error.
        return False


def batches(
    sources: Mapping[str, Source],
    tokenizer: Tokenizer,
    image_format: ImageFormat,
    seed: int,
    sharding: jax.sharding.Sharding | None = None,
) -> dict[str, grain.MapDataset]:
    """This process's share of each data set's batches: element k holds its rows of batch k of the run.

    A process reads the rows that its devices hold; these are all rows if only the model is cut. Row r of batch k is
    sequence k * batch_size + r in every process. So the number of batches read is a position from which any number of
    processes can resume.

    Args:
      sharding: how batches lie on the mesh; None reads whole batches.
    """
    datasets = {}
    for name, source in sources.items():
        chosen = _held(source.batch_size, sharding) if sharding else range(source.batch_size)
        every = rows(source, tokenizer, image_format, _seed_of(seed, name))
        dataset = grain.MapDataset.source(_Rows(every, source.batch_size, tuple(chosen)))
        datasets[name] = dataset.batch(len(chosen), drop_remainder=True)
    return datasets


@functools.cache  # Called at every step.
def _held(batch_size: int, sharding: jax.sharding.Sharding) -> tuple[int, ...]:
    """The rows of a batch that this process's devices hold, in order."""
    held: Any = sharding.addressable_devices_indices_map((batch_size,)).values()
    return tuple(sorted({row for (part,) in held for row in range(*part.indices(batch_size))}))


def read(dataset: grain.MapDataset, start: int, workers: int) -> Iterator[Batch]:
    """Reads batches ahead, from batch `start` on, in threads or in `workers` processes.

    Together they hold `held_ahead(workers)` batches. An error of a worker is raised here, where its batch is due.

    Raises:
      ChildProcessError: a worker was killed, as the kernel does where memory is short, or stopped for a minute.
    """
    dataset = dataset[start:]
    if not workers:
        return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)))
    # A worker is one core, so threads in it would only hold more batches.
    iterated = dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
    return _alive(_shielded(iter(iterated.mp_prefetch(options, worker_init_fn=_go_on))))


def _alive(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches of workers. ChildProcessError if one ended before its time, which Grain tells by its exit code."""
    try:
        yield from batches
    except RuntimeError as error:
        if not (code := re.search(r'terminated unexpectedly with exit code (-?\d+)', str(error))):
            raise
        how = f'by {signal.Signals(-int(code[1])).name}' if int(code[1]) < 0 else f'with exit code {code[1]}'
        raise ChildProcessError(
            errno.ECHILD,
            f'A process that reads a data set (`workers`) ended {how}. Without memory, the kernel sends SIGKILL (dmesg '
            'says so): give the data sets fewer workers, or the machine more memory. The same command resumes from the '
            'newest checkpoint',
        ) from error


@functools.cache
def _watch() -> None:
    """Begins to look at the workers of this process, once."""
    if pathlib.Path('/proc/self/stat').exists():  # Not on macOS.
        threading.Thread(target=_kill_stopped, daemon=True).start()


def _kill_stopped() -> None:
    looks: dict[int, int] = {}
    while True:
        time.sleep(BETWEEN)  # If this process is stopped too, as all of a job, no look counts.
        stopped = [pid for worker in multiprocessing.active_children() if (pid := worker.pid) and _is_stopped(pid)]
        looks = {pid: looks.get(pid, 0) + 1 for pid in stopped}
        for pid in (pid for pid, number in looks.items() if number >= LOOKS):
            said = f'The process {pid}, which reads a data set, has been stopped for {LOOKS * BETWEEN:.0f} s: killed.'
            print(said, file=sys.stderr, flush=True)
            os.kill(pid, signal.SIGKILL)


def _is_stopped(pid: int) -> bool:
    """Whether a process has been stopped, by SIGSTOP or a debugger."""
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] in 'Tt'
    except OSError:  # It has ended.
        return False


def _shielded(iterator: Iterator[Batch]) -> Iterator[Batch]:
    """SIGTERM waits in workers that still start, until `_go_on` ignores it: that takes them seconds."""
    resource_tracker.ensure_running()  # Started later, it would let the signal through again (Python 3.11).
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:  # The first batch starts the threads that start the workers. Both inherit what is blocked here.
        first = next(iterator)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _watch()
    yield first
    yield from iterator


def _go_on(index: int, count: int) -> None:
    """In a worker. Machines that are taken away send SIGTERM to all processes of a group.

    Only the one that trains acts on it: it needs batches until all agree on the step after which they save.
    """
    del index, count
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    # It ends with the process that trains, however that ends: nobody else would end it.
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def held_ahead(workers: int) -> int:
    """The batches of a data set that a process, or all of its workers, hold at most."""
    return workers * OF_WORKER if workers else THREADS + AHEAD


def _seed_of(seed: int, name: str) -> int:
    """A data set's own seed: it depends on no other data set of the mixture."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


def put(batch: Batch, sharding: jax.sharding.Sharding, batch_size: int) -> Batch:
    """This process's rows -> global arrays of `batch_size` rows, sharded over them."""
    first = {row: i for i, row in enumerate(_held(batch_size, sharding))}

    def shard(value: np.ndarray) -> jax.Array:
        def held(index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(batch_size)
            return value[first[start] :][: stop - start]

        return jax.make_array_from_callback((batch_size, *value.shape[1:]), sharding, held)

    return jax.tree.map(shard, batch)
