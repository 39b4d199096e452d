"""One process at a time in a folder, by a lock that dies with its process.

The same command, started twice, would delete its own checkpoints. On a disk the lock is a record lock (fcntl) of a
hidden file, which holds between the machines that share a folder by NFS, too. A bucket has no locks, so there it is a
lease: an object that its holder changes every few seconds. Who finds one waits, by a clock of its own that nobody sets,
whether it changes. If it does not, its holder is dead. All writes name the version that they replace, so that of two
only one succeeds.

The file or object says who holds it: host, process, command, and since when.
"""

import contextlib
import errno
import fcntl
import functools
import inspect
import json
import os
import pathlib
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from etils import epath

from flamingo_jax.errors import UserError

RENEWED = 10.0  # Seconds between two changes of a lease.
LEASE = 60.0  # Seconds without a change after which it is anyone's.
WATCHED = 1.0  # Seconds between two looks at the lease of another.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)  # What disks say that have none.
T = TypeVar('T')

# Device and inode of each file that this process has locked. Record locks are between processes: a process gets its own
# a second time, and loses it as soon as it closes the file anywhere.
_held: set[tuple[int, int]] = set()
_holding = threading.Lock()


@contextlib.contextmanager
def alone(folder: pathlib.Path | epath.Path, beside: bool = False) -> Iterator[None]:
    """Keeps every other process out of a folder, of this machine or of a bucket, as long as they ask in this way.

    A folder that did not exist is made, and removed if nothing was put there.

    Args:
      beside: the lock is beside the folder and not in it, for what must not exist before it is whole, and for files.

    Raises:
      ValueError: another process has it. The message says which, and where it runs.
      OSError: the folder cannot be written.
    """
    file = folder.parent / f'.{folder.name}.lock' if beside else folder / '.lock'
    with _on_disk(file, folder) if isinstance(file, pathlib.Path) else _leased(file, folder):
        yield


def alone_in(argument: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Decorates a function that works in the folder which an argument names: `alone` there, for all processes of a run.

    The first of several has the lock. If it cannot have it, all get the error.
    """
    from flamingo_jax.files import as_path  # It locks files, too.
    from flamingo_jax.parallel import processes

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(function)
        def locked(*given: Any, **named: Any) -> T:
            folder = inspect.signature(function).bind(*given, **named).arguments[argument]
            with processes.in_first(alone(as_path(folder))):
                return function(*given, **named)

        return locked

    return decorate


@contextlib.contextmanager
def _on_disk(file: pathlib.Path, what: pathlib.Path) -> Iterator[None]:
    made = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    opened = _lock(file, what)
    status = os.fstat(opened)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _same(os.stat(file), status):
                file.unlink()  # While it is locked: who opened it before finds that it is no longer there.
        with _holding:
            _held.discard((status.st_dev, status.st_ino))
            os.close(opened)
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()


def _lock(file: pathlib.Path, what: pathlib.Path) -> int:
    """The descriptor of a file that is locked."""
    while True:
        with _holding:  # No other thread may open and close the file in between.
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(file)
                if (status.st_dev, status.st_ino) in _held:
                    raise UserError(_said(what, file, _holder()))
            opened = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                found = os.pread(opened, 2**16, 0)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    os.close(opened)
                    raise UserError(_said(what, file, _parsed(found))) from None
                if error.errno not in NO_LOCKS:
                    os.close(opened)
                    raise
                print(f'The file system of {what} has no locks ({error.strerror}): start nothing else there.')
            status = os.fstat(opened)
            try:
                there = _same(os.stat(file), status)
            except FileNotFoundError:
                there = False
            if not there:  # The holder before removed it.
                os.close(opened)
                continue
            with contextlib.suppress(OSError):  # On a full disk it is locked and does not say by whom.
                os.ftruncate(opened, 0)
                os.pwrite(opened, json.dumps(_holder()).encode(), 0)
            _held.add((status.st_dev, status.st_ino))
            return opened


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


@contextlib.contextmanager
def _leased(file: epath.Path, what: epath.Path) -> Iterator[None]:
    lease = _Lease(file, what)
    lease.take()
    try:
        yield
    finally:
        lease.give_back()


class _Lease:
    """An object of a bucket that its holder changes every `RENEWED` seconds."""

    def __init__(self, file: epath.Path, what: epath.Path):
        import tensorstore
        from orbax.checkpoint._src.path import gcs_utils  # Of gs:// and s3://, see `files._let_orbax_use_s3`.

        self._store = tensorstore.KvStore.open(gcs_utils.get_kvstore_for_gcs(f'{file.parent}/')).result()
        self._file, self._what, self._version = file, what, b''
        self._holder: dict[str, Any] = _holder() | dict(id=uuid.uuid4().hex, renewed=0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def take(self) -> None:
        """Takes it, or raises ValueError with its holder. If its holder may be dead, waits up to `LEASE` seconds."""
        while True:
            found = self._read()
            if found.value and not _is_dead(holder := _parsed(found.value)):
                self._watch(found.stamp.generation, holder)
            if self._write(found.stamp.generation):
                self._thread.start()
                return

    def _watch(self, version: bytes, holder: dict[str, Any]) -> None:
        """Returns when the lease has not changed for `LEASE` seconds, or is gone. ValueError if it changes."""
        print(f'{self._file} is of {_name(holder)}. Waiting for at most {LEASE:.0f} s whether it lives.', flush=True)
        until = time.monotonic() + LEASE
        while time.monotonic() < until:
            time.sleep(WATCHED)
            found = self._read()
            if not found.value:
                return
            if found.stamp.generation != version:
                raise UserError(_said(self._what, self._file, _parsed(found.value)))

    def _read(self) -> Any:
        return self._store.read(self._file.name).result()

    def _write(self, version: bytes) -> bool:
        """Whether this process has it now, if it was of this version. A version of an absent object is one, too."""
        self._holder['renewed'] += 1  # The version of an object in S3 is one of its content.
        written = self._store.write(self._file.name, json.dumps(self._holder).encode(), if_equal=version).result(LEASE)
        self._version = written.generation
        if not self._version:  # Or it was written, the answer was lost, and the second try found the first.
            found = self._read()
            self._version = found.stamp.generation
            return bool(found.value) and _parsed(found.value).get('id') == self._holder['id']
        return True

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED):
            try:
                if self._write(self._version) or not self._read().value:
                    continue
            except Exception:  # The bucket cannot be reached. While that is so, nobody else can take it, either.
                continue
            if not self._ended.is_set():
                found = _said(self._what, self._file, _parsed(self._read().value or b''))
                print(f'error: This process stood still for too long and lost its lease. {found}', file=sys.stderr)
                sys.stderr.flush()
                os._exit(1)  # Whatever it wrote from now on would be into the folder of another.

    def give_back(self) -> None:
        self._ended.set()
        self._thread.join(LEASE)
        with contextlib.suppress(Exception):  # It ends by itself.
            self._store.write(self._file.name, None, if_equal=self._version).result(RENEWED)


def _holder() -> dict[str, Any]:
    """What a lock says of this process."""
    command = ' '.join(sys.argv)
    about = dict(host=platform.node(), process=os.getpid(), command=command, since=time.strftime('%Y-%m-%d %H:%M:%S'))
    return about | dict(machine=_machine(), begun=_begun(os.getpid()))


def _machine() -> str:
    """This machine since it was started, and which of its processes are seen; '' if it does not say."""
    try:
        return pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip() + os.readlink('/proc/self/ns/pid')
    except OSError:
        return ''


def _begun(process: int) -> str:
    """When a process of this machine was started, in its own count; '' if there is none."""
    try:
        state, *fields = pathlib.Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return ''
    return '' if state in 'ZX' else fields[18]


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether a holder is known to be dead: it ran on this machine, and does not."""
    return bool(_machine()) and holder.get('machine') == _machine() and _begun(holder['process']) != holder['begun']


def _parsed(content: bytes) -> dict[str, Any]:
    """What a lock says of its holder; {} if that was not written yet."""
    try:
        said = json.loads(content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _name(holder: dict[str, Any]) -> str:
    if not holder:
        return 'another process'
    return f'process {holder["process"]} on {holder["host"]}, since {holder["since"]} ({holder["command"]})'


def _said(what: Any, file: Any, holder: dict[str, Any]) -> str:
    return (
        f'{what} is in use by {_name(holder)}. Wait until that has ended, or end it, or give another folder. (The lock '
        f'is {file}. It ends with its process.)'
    )
