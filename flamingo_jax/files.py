"""Files and folders of this machine, or of a bucket: what is written is there as a whole, or not there.

A path in a bucket, gs://BUCKET/... or s3://BUCKET/..., is an `etils.epath.Path`, which has the methods of
`pathlib.Path`. Credentials are found as Google's and Amazon's own clients find them.

An object of a bucket appears as a whole. A folder does not, since a bucket has no folders that could be renamed. So a
folder in a bucket is filled in place, and counts as absent until the file that is written last is there.
"""

import concurrent.futures
import contextlib
import errno
import functools
import glob
import hashlib
import importlib.util
import os
import pathlib
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from etils import epath
from tqdm import tqdm

from flamingo_jax import commands
from flamingo_jax.errors import MissingPackageError, StorageError, UserError
from flamingo_jax.locks import alone

Path = pathlib.Path | epath.Path
T = TypeVar('T')

FILLING = '.filling'  # A mark in a folder of a bucket until it is whole.
PACKAGES = {'gs': 'gcsfs', 's3': 's3fs'}  # The libraries behind fsspec.

WAITS = (0.5, 2.0, 8.0)  # Seconds before what failed is tried again.
# Seconds and bytes a second within which a bucket has taken an object: s3fs 2026.9 may wait for ever for a request
# whose connection was reset.
ANSWER, SLOWEST = 60.0, 1e6
# What a disk, a network file system or a short supply says at one time, and not at another.
PASSING = {
    getattr(errno, name)
    for name in (
        'EIO ESTALE EAGAIN EBUSY EINTR ETIMEDOUT EMFILE ENFILE ENOMEM ENOBUFS EPIPE ECONNRESET ECONNABORTED '
        'ECONNREFUSED ENOTCONN EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ENETRESET EREMOTEIO'
    ).split()
    if hasattr(errno, name)  # macOS has no EREMOTEIO.
}
LASTING = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}  # What a bucket says for good.


def in_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether a path begins with gs:// or s3://."""
    return _scheme(path) != ''


def as_path(path: str | os.PathLike[str]) -> Path:
    """The absolute path of this machine, with ~ expanded, or the path in a bucket.

    Raises:
      ImportError: the library for the bucket is not installed; the message names it.
      ValueError: it is on the Hub (`hub.py`).
    """
    if os.fspath(path).startswith('hf://'):
        raise UserError(f'{path} cannot be used here: what is on the Hub is read as a model, and not written.')
    if scheme := _scheme(path):
        _prepare(scheme)
        return epath.Path(path)
    return pathlib.Path(path).expanduser().absolute()


def persist(call: Callable[[], T], path: str | os.PathLike[str]) -> T:
    """Returns what `call` returns, which reads or replaces `path`. An error that may pass gets three more tries.

    On this machine these are the errors of `PASSING`. Of a bucket it is every error, since each client has its own, but
    that there is no such object or no right to it.

    Raises:
      OSError: it failed each time, or for good. It has the path and the errno.
    """
    for wait in (*WAITS, None):
        try:
            return call()
        except MemoryError:
            raise
        except Exception as error:
            if not in_bucket(path) and not isinstance(error, OSError):
                raise
            told = _told(error, path)
            if wait is None or told.errno not in PASSING:
                raise told from error
        time.sleep(wait)
    raise AssertionError('The last try returns or raises.')


def _told(error: Exception, path: str | os.PathLike[str]) -> OSError:
    """An error of reading, with its path and errno; EIO where its library gives none."""
    code = error.errno if isinstance(error, OSError) and error.errno in errno.errorcode else None
    kinds = LASTING | {TimeoutError: errno.ETIMEDOUT}
    code = code or next((number for kind, number in kinds.items() if isinstance(error, kind)), errno.EIO)
    said = getattr(error, 'strerror', None) or f'{type(error).__name__}: {error}'.removesuffix(': ')
    return OSError(code, said, os.fspath(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file, on this machine or in a bucket. OSError as for `persist`."""
    return persist(as_path(path).read_bytes, path)


def read_part(path: Path, offset: int, size: int) -> bytes:
    """So many bytes of a file of this machine from an offset on.

    Raises:
      OSError: as for `persist`; and if the file ends before.
    """

    def part() -> bytes:
        with open(path, 'rb', buffering=0) as file:
            content = os.pread(file.fileno(), size, offset)
            while len(content) < size and (more := os.pread(file.fileno(), size - len(content), offset + len(content))):
                content += more
        if len(content) < size:
            raise OSError(errno.EIO, f'The file ends before byte {offset + size:,}')
        return content

    return persist(part, path)


def write_whole(path: Path, content: bytes) -> Path:
    """Writes a file so that it always has either the old or the new content, even on a full disk. Returns its path.

    Raises:
      OSError: the file could not be written; it keeps the old content.
    """
    if in_bucket(path):
        store, name = _store(path)
        limit = ANSWER + len(content) / SLOWEST
        persist(lambda: store.pipe_file(name, content, timeout=limit), path)  # `timeout` is of fsspec's `sync`.
        return path
    aside = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}')  # Another process may write the same.
    try:
        with open(aside, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def refuse_existing(path: Path, last: str) -> None:
    """FileExistsError if there is something at `path`, but for what `whole_folder` was killed over in a bucket."""
    half = in_bucket(path) and (path / FILLING).exists() and not (path / last).exists()
    if path.exists() and not half:
        raise FileExistsError(f'{path} exists already. Remove it, or choose another folder.')


@contextlib.contextmanager
def whole_folder(path: Path, last: str) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `path`.

    On this machine it has another name until it is whole. In a bucket, whoever fills it must write the file `last`
    after all others, and whoever reads it must look for that file first. After an error nothing is left.

    Raises:
      FileExistsError: `path` exists.
    """
    refuse_existing(path, last)
    if in_bucket(path):
        remove(path)  # Left by a process that was killed.
        write_whole(path / FILLING, b'')
        try:
            yield path
        except BaseException:
            remove(path)
            raise
        (path / FILLING).unlink()
        return
    with whole(path) as aside:
        aside.mkdir()
        yield aside


@contextlib.contextmanager
def whole(path: Path, last: str = '', resumed: bool = False) -> Iterator[pathlib.Path]:
    """Gives a name on this machine for a file or a folder to write, which then becomes `path`.

    For what writes nowhere but on this machine. Of a folder that goes into a bucket, the file `last` is copied last.
    With `resumed` the name is the same each time, and after an error or a kill what was written is still there, so that
    it can be gone on with.

    Raises:
      ValueError: another process is writing it, with `resumed`.
    """
    near = pathlib.Path(tempfile.gettempdir() if in_bucket(path) else path.parent)
    near.mkdir(parents=True, exist_ok=True)
    same = hashlib.sha256(str(path).encode()).hexdigest()
    aside, ended = near / f'.{(same if resumed else uuid.uuid4().hex)[:8]}.{path.name}', False
    with alone(path, beside=True) if resumed else contextlib.nullcontext():
        try:
            yield aside
            if not in_bucket(path):
                aside.rename(path)
            elif aside.is_dir():
                upload(aside, path, last)
            else:
                store, name = _store(path)
                store.put_file(str(aside), name)
            ended = True
        finally:
            if ended or not resumed:
                aside.unlink(missing_ok=True) if aside.is_file() else shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def replacing(folder: pathlib.Path) -> Iterator[None]:
    """Keeps a folder of this machine, if it is there, aside while another is made; after an error it is back.

    After a kill it is there as `.NAME.replaced`, until the next call.
    """
    aside = folder.with_name(f'.{folder.name}.replaced')
    if aside.exists() and not folder.exists():
        aside.rename(folder)
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    try:
        yield
    except BaseException:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def reserve(file: pathlib.Path) -> None:
    """Takes the bytes of a new file on the disk, before what is mapped is written: a full disk would kill the process.

    Raises:
      OSError: the disk has no room for it; the file is removed.
    """
    size = file.stat().st_size
    if not hasattr(os, 'posix_fallocate') or not size:  # macOS has none.
        return
    try:
        with open(file, 'r+b') as opened:
            os.posix_fallocate(opened.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # Else this disk cannot say.
            file.unlink()  # Else it would keep what room there was.
            said = f'{error.strerror}: {size:,} bytes are needed. Free them, or write to another disk'
            raise OSError(error.errno, said, str(file)) from error


def file_size(path: Path) -> int:
    """The size of a file in bytes. OSError if there is none."""
    found: Any = path.stat()  # Another class in a bucket.
    return found.length if in_bucket(path) else found.st_size


def below(folder: Path) -> dict[str, int]:
    """The size in bytes of every file in a folder and below, by relative path, sorted."""
    if in_bucket(folder):
        return {name: entry['size'] for name, entry in _entries(folder).items()}
    files = sorted(file for file in folder.rglob('*') if file.is_file())
    return {str(file.relative_to(folder)): file_size(file) for file in files}


def names(folder: Path) -> list[str]:
    """The names of what is in a folder, without order; none if there is no folder. OSError if it cannot be read.

    In a bucket `is_dir` says no after any error, as if there had never been a folder.
    """
    try:
        if not in_bucket(folder):
            return os.listdir(folder)
        store, name = _store(folder)
        return [path.rstrip('/').rpartition('/')[2] for path in store.ls(name, detail=False) if path.strip('/') != name]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except Exception as error:  # Each bucket's client has its own.
        if not in_bucket(folder):
            raise
        raise StorageError(f'{folder} cannot be listed: {error or type(error).__name__}. Try again later.') from error


def remove(folder: Path, first: str = '') -> None:
    """Removes a folder, if it is there; of a folder in a bucket first the file that says that it is whole."""
    if not in_bucket(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    store, name = _store(folder)
    if first:
        (folder / first).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        store.rm(name, recursive=True)


def move(folder: Path, to: Path) -> None:
    """Gives a folder another name, in a bucket object by object."""
    if not in_bucket(folder):
        folder.rename(to)
        return
    (store, name), (_, other) = _store(folder), _store(to)
    for file in below(folder):
        store.cp_file(f'{name}/{file}', f'{other}/{file}')
    remove(folder)


def upload(folder: pathlib.Path, out: Path, last: str = '') -> None:
    """Copies the files of a folder of this machine into a folder of a bucket, the file `last` after all others."""
    store, name = _store(out)
    for file in tqdm(
        sorted(below(folder), key=lambda file: (file == last, file)), unit=' files', desc=f'{out}', delay=2
    ):
        store.put_file(str(folder / file), f'{name}/{file}')


def local(path: Path) -> pathlib.Path:
    """A copy of a file or folder on this machine's disk, for libraries that read nothing else; `path` if it is there.

    Copies are kept in $XDG_CACHE_HOME/flamingo_jax (by default ~/.cache), each under a name that changes with its
    content, and taken again by whoever asks next. They may be deleted at any time.

    Raises:
      FileNotFoundError: there is nothing at `path`.
    """
    if not in_bucket(path):
        return cast(pathlib.Path, path)
    store, name = _store(path)
    entries = _entries(path)
    if not entries:
        raise FileNotFoundError(f'There is no file and no folder {path}.')
    versions = [f'{path}', *(f'{file} {_version(entry)}' for file, entry in entries.items())]
    home = commands.cache()
    folder = home / hashlib.sha256('\n'.join(versions).encode()).hexdigest()[:32]
    if not folder.is_dir():
        aside = home / f'.{folder.name}.{uuid.uuid4().hex[:8]}'
        size = sum(entry['size'] for entry in entries.values())
        try:
            with (
                tqdm(total=size, unit='B', unit_scale=True, desc=f'copy {path}', delay=2) as bar,
                concurrent.futures.ThreadPoolExecutor(8) as threads,
            ):

                def copy(file: str) -> int:
                    (aside / path.name / file).parent.mkdir(parents=True, exist_ok=True)
                    store.get_file(f'{name}/{file}'.rstrip('/'), str(aside / path.name / file))
                    return entries[file]['size']

                for copied in threads.map(copy, entries):
                    bar.update(copied)
            with contextlib.suppress(OSError):  # Another process of this machine was first.
                aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder / path.name


@contextlib.contextmanager
def beside(path: str) -> Iterator[str]:
    """A copy of a file on this machine while it is in use, with the files beside it that have another ending."""
    if not in_bucket(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        for file in find(f'{os.path.splitext(path)[0]}.*'):
            download(file, pathlib.Path(folder, os.path.basename(file)))
        yield os.path.join(folder, os.path.basename(path))


def download(path: str, to: pathlib.Path) -> None:
    """Copies one file out of a bucket. FileNotFoundError if it is not there."""
    _prepare(_scheme(path))
    store, name = _store(path)
    store.get_file(name, str(to))


def find(pattern: str) -> list[str]:
    """The files whose path matches a pattern with *, ** and ?, sorted, in a folder or in a bucket."""
    if scheme := _scheme(pattern):
        _prepare(scheme)
        store, name = _store(pattern)
        return sorted(f'{scheme}://{path}' for path, entry in store.glob(name, detail=True).items() if _is_file(entry))
    found = glob.glob(os.path.expanduser(pattern), recursive=True)
    return sorted(os.path.abspath(path) for path in found if os.path.isfile(path))


def _scheme(path: str | os.PathLike[str]) -> str:
    scheme, separator, _ = os.fspath(path).partition('://')
    return scheme if separator and scheme in PACKAGES else ''


@functools.cache
def _prepare(scheme: str) -> None:
    """Sets up the libraries for one kind of bucket."""
    if importlib.util.find_spec(PACKAGES[scheme]) is None:
        raise MissingPackageError(
            f'A path that begins with {scheme}:// needs the package {PACKAGES[scheme]}: '
            f"pip install 'flamingo_jax[{dict(gs='gcs', s3='s3')[scheme]}]'."
        )
    import fsspec.config

    # What TensorStore or another host writes would be missing in a listing that is kept.
    for name in dict(gs=('gs', 'gcs'), s3=('s3',))[scheme]:
        fsspec.config.conf[name] = fsspec.config.conf.get(name, {}) | dict(use_listings_cache=False)
    if scheme == 's3':
        _let_orbax_use_s3()


def _store(path: str | os.PathLike[str]) -> tuple[Any, str]:
    """fsspec's file system, and the path without gs:// or s3://."""
    import fsspec

    return fsspec.core.url_to_fs(os.fspath(path))


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    """fsspec's description of every object below a path, by relative path; '' is the path itself."""
    store, name = _store(path)
    found = store.find(name, detail=True)
    return {file.removeprefix(name).lstrip('/'): entry for file, entry in sorted(found.items()) if _is_file(entry)}


def _is_file(entry: dict[str, Any]) -> bool:
    return entry['type'] == 'file' and not entry['name'].endswith('/')


def _version(entry: dict[str, Any]) -> str:
    return ' '.join(str(entry.get(key, '')) for key in ('size', 'ETag', 'etag', 'generation', 'LastModified', 'mtime'))


def _let_orbax_use_s3() -> None:
    """Orbax 0.12 gives TensorStore its driver for gs:// and not that for s3://, which works in the same way.

    It treats a bucket as such where it finds the prefix; in these four places it must find s3:// too.
    """
    from orbax.checkpoint._src.path import gcs_utils
    from orbax.checkpoint._src.serialization import tensorstore_utils

    of_gcs, normalized = gcs_utils.get_kvstore_for_gcs, tensorstore_utils._normalize_path

    def kvstore(path: str) -> dict[str, Any]:
        if not path.startswith('s3://'):
            return of_gcs(path)
        bucket, _, key = path.removeprefix('s3://').partition('/')
        # The variables of Amazon's own clients that TensorStore does not read.
        names = dict(
            endpoint=('AWS_ENDPOINT_URL_S3', 'AWS_ENDPOINT_URL'), aws_region=('AWS_REGION', 'AWS_DEFAULT_REGION')
        )
        given = {field: next(filter(None, map(os.environ.get, both)), None) for field, both in names.items()}
        return dict(driver='s3', bucket=bucket, path=key) | {field: value for field, value in given.items() if value}

    gcs_utils._GCS_PATH_PREFIX = ('gs://', 's3://')
    gcs_utils.get_kvstore_for_gcs = kvstore
    tensorstore_utils._use_gcs_driver = lambda path: path.startswith(('gs://', 's3://'))
    tensorstore_utils._normalize_path = lambda path: normalized(path).replace('s3:/', 's3://', 1)
