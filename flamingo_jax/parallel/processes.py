"""Several processes as one run: they join, they print once, they stop at the same step.

JAX's coordination service does the work: a SIGTERM to any process becomes a step at which all stop. If a process dies,
the others end with a message that names it as a task.
"""

import contextlib
import itertools
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # Its key-value store has no public name, though Orbax uses it too.
from jax.experimental import multihost_utils

from flamingo_jax import commands
from flamingo_jax.errors import UserError

# A process that has been silent for this long is dead, and the others stop. JAX's default is 100 s.
HEARTBEAT_SECONDS = 30
# How long a process waits for another that lives.
POST_SECONDS = 3600
TASKS = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')  # Where SLURM's srun and Open MPI say how many they started.
_BARRIERS = itertools.count()  # Each barrier needs a name of its own.


def join(coordinator: str, processes: int | None, process_id: int | None) -> None:
    """Joins this process to the others. Must be called before anything is computed.

    Args:
      coordinator: 'host:port' of process 0; 'auto' if JAX can find all three arguments itself (TPU pods, SLURM, Open
        MPI, Kubernetes); '' for a single process.
      processes: the number of processes.
      process_id: the number of this one, from 0.

    Raises:
      ValueError: `processes` or `process_id` is missing or wrong, or there are several and no coordinator.
    """
    if not coordinator:
        if processes or process_id is not None:
            raise UserError('--processes and --process_id need --coordinator=HOST:PORT, the address of process 0.')
        if several := [name for name in TASKS if int(os.environ.get(name) or 1) > 1]:
            raise UserError(
                f'{several[0]} says that this is one of {os.environ[several[0]]} processes, each of which would take '
                'itself for the whole run. Add --coordinator=auto. If each is a run of its own, unset the variable.'
            )
        if jax.process_count() > 1:
            raise UserError(
                f'This is one of {jax.process_count()} hosts of a TPU slice. Start the command on each of them with '
                '--coordinator=auto.'
            )
        return
    auto = coordinator == 'auto'
    if not auto and (processes is None or process_id is None or not 0 <= process_id < processes):
        raise UserError(
            f'--coordinator={coordinator} needs --processes and --process_id with 0 <= process_id < processes; they '
            f'are {processes} and {process_id}. On TPU pods and SLURM, --coordinator=auto finds both.'
        )
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(
        None if auto else coordinator,
        processes,
        process_id,
        # JAX gives each task of SLURM and of Open MPI one GPU. The only task of a host takes all.
        local_device_ids=[] if auto and _alone_on_host() else None,
        cluster_detection_method=None if auto else 'deactivate',
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=HEARTBEAT_SECONDS,
    )
    if jax.process_count() > 1:
        _keep_no_own_programs()
        _let_orbax_wait()
    say(
        f'{jax.process_count()} processes with {jax.device_count()} devices. If one dies, the others stop within '
        f'{2 * HEARTBEAT_SECONDS} s; the "task" in their message is its process_id. If process 0 dies, they report a '
        'lost leader.'
    )


def _keep_no_own_programs() -> None:
    """Compiled programs are not kept in a folder that each host has for itself.

    JAX writes them in process 0 alone. After a restart that one would find its program and the others none. They would
    compile, on GPUs for ever, since there all processes share the search for the fastest kernels.
    """
    if commands.keeps_own_programs():
        jax.config.update('jax_compilation_cache_dir', None)


def _let_orbax_wait() -> None:
    """Gives the barriers of Orbax, at which hosts meet after a read, more than their 300 s: one may read from afar."""
    from orbax.checkpoint._src.multihost import multihost as older
    from orbax.checkpoint.experimental.v1._src.synchronization import multihost

    for module in (older, multihost):
        setattr(module, '_DEFAULT_BARRIER_TIMEOUT', POST_SECONDS)  # noqa: B010


def _alone_on_host() -> bool:
    """Whether SLURM or Open MPI has one task on this host, whose GPUs nobody chose."""
    tasks, hosts = (os.environ.get(name) for name in ('SLURM_NTASKS', 'SLURM_STEP_NUM_NODES'))
    alone = tasks is not None and tasks == hosts or os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE') == '1'
    return alone and 'JAX_LOCAL_DEVICE_IDS' not in os.environ


def say(message: str) -> None:
    """Prints a message in process 0 only."""
    if jax.process_index() == 0:
        print(message, flush=True)


def from_first(value: Any) -> Any:
    """Returns process 0's value in every process. A value is anything JSON can hold. Errors as for `wait_for_all`."""
    if jax.process_count() == 1:
        return value
    wait_for_all('from_first')
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int64(data.size)))
    data = data if jax.process_index() == 0 else np.zeros(size, np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(data)).tobytes())


@contextlib.contextmanager
def in_first(context: contextlib.AbstractContextManager) -> Iterator[None]:
    """Enters a context in process 0 only. ValueError in every process if that fails there."""
    with contextlib.ExitStack() as stack:
        refused = None
        try:
            if jax.process_index() == 0:
                stack.enter_context(context)
        except (UserError, OSError) as error:
            refused = error
        if message := from_first(refused and str(refused)):
            raise refused or UserError(message)
        yield


def gather(value: Any, seconds: int = POST_SECONDS) -> list[Any]:
    """Returns the values of all processes, by process number, in every process. A value is anything JSON can hold.

    seconds, and errors: as for `wait_for_all`.
    """
    if jax.process_count() == 1:
        return [value]
    wait_for_all('gather', seconds)
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int64(data.size))).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: data.size] = data
    every = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    return [json.loads(row[:size].tobytes()) for row, size in zip(every, sizes, strict=True)]


def post(name: str, value: Any) -> None:
    """Gives a value, anything JSON can hold, to the processes that ask for it by name; each name only once.

    It goes through the coordination service and not, as in `gather`, through the devices. So a thread in the background
    may call it while they compute.
    """
    distributed.global_state.client.key_value_set(f'{name}/{jax.process_index()}', json.dumps(value))


def posted(name: str, process: int) -> Any:
    """Waits until a process has posted a value by this name, and returns it. Must not be called by a single process."""
    client = distributed.global_state.client
    return json.loads(client.blocking_key_value_get(f'{name}/{process}', POST_SECONDS * 1000))


def withdraw(name: str) -> None:
    """Forgets what this process posted by a name, if it did. Only when all who ask for it have read it."""
    distributed.global_state.client.key_value_delete(f'{name}/{jax.process_index()}')


def tell(name: str, value: Any) -> None:
    """Gives a value, anything JSON can hold, in place of what this process told by that name before; waits for none."""
    if jax.process_count() > 1:
        key = f'{name}/{jax.process_index()}'
        distributed.global_state.client.key_value_set(key, json.dumps(value), allow_overwrite=True)


def told(name: str) -> dict[int, Any]:
    """What each process last told by that name, by its number; without those that have told nothing yet."""
    found = distributed.global_state.client.key_value_dir_get(f'{name}/') if jax.process_count() > 1 else []
    return {int(key.rpartition('/')[2]): json.loads(value) for key, value in found}


def wait_for_all(name: str, seconds: int = POST_SECONDS) -> None:
    """Returns when all processes have called this; after so many seconds an error names those that have not.

    The coordination service waits. A collective of the devices would wait for ever, or on GPUs fail within minutes.
    """
    if jax.process_count() > 1:
        barrier = f'{name} {next(_BARRIERS)}'
        distributed.global_state.client.wait_at_barrier(barrier, seconds * 1000)


class Preemption:
    """Turns a SIGTERM, to one process or to all, into a step after which every process stops.

    with Preemption() as preemption:
        for step in ...:
            ...
            if preemption.reached(): save and leave
    """

    def __init__(self):
        self._asked = self._reached = False
        self._calls = itertools.count()
        # With several processes, JAX listens for the signal; a Python handler would replace it.
        self._listens = threading.current_thread() is threading.main_thread() and not jax.distributed.is_initialized()

    def __enter__(self):
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_):
        if self._listens:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, *_):
        self._asked = True

    def reached(self) -> bool:
        """True once all are to stop. Every process must call this after every step, and equally often in between."""
        if jax.distributed.is_initialized():
            # True at one call alone, the same in all.
            self._reached = self._reached or multihost_utils.reached_preemption_sync_point(next(self._calls))
            return self._reached
        return self._asked
