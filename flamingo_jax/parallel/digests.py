"""SHA-256 of files that are written once and read for years: the trees of a bundle, and features.

    {"part": 268435456, "files": {"params/lm/state/d/0c6f": {"bytes": 311, "sha256": ["9f86..."]}, ...}}

A large file has a digest for each part, so that threads, and processes that share a disk, can verify it side by side:
one core does 1.8 GB a second. A store of objects checks its bytes itself, so that in a bucket sizes alone are compared.

A file that differs is damaged, and the message says which. A file that the disk or the network cannot give is an
`OSError` of theirs, and says nothing of the file.
"""

import concurrent.futures
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
from tqdm import tqdm

from flamingo_jax.errors import UserError
from flamingo_jax.files import Path, below, file_size, in_bucket, write_whole
from flamingo_jax.parallel import processes

FILE = 'digests.json'
PART = 2**28  # Bytes.
_PIECE = 2**22  # Bytes that a thread reads at a time.
_POINTER = b'version https://git-lfs'

Digest = dict[str, Any]  # Of a file: 'bytes', and unless it is in a bucket 'sha256' of each part.


def of_folder(folder: Path, under: str = '') -> dict[str, Digest]:
    """The digests of the files below a part of a folder, by paths relative to the folder."""
    return of_files({f'{under}{name}': folder / under / name for name in below(folder / under)})


def of_files(paths: Mapping[str, Path]) -> dict[str, Digest]:
    """The digests of some files, by the names that they are given."""
    out: dict[str, Digest] = {name: dict(bytes=file_size(path), sha256=[]) for name, path in paths.items()}
    parts = [(name, i) for name, path in paths.items() if not in_bucket(path) for i in _parts(out[name]['bytes'])]
    with concurrent.futures.ThreadPoolExecutor() as threads:
        sums = threads.map(lambda part: _sha256(paths[part[0]], part[1], PART), parts)
        for (name, _), digest in zip(parts, sums, strict=True):
            out[name]['sha256'].append(digest)
    return out


def write(file: Path, digests: Mapping[str, Digest]) -> None:
    """Writes digests. OSError if it cannot be written."""
    write_whole(file, f'{json.dumps(dict(part=PART, files=digests), indent=1)}\n'.encode())


def verify(
    file: Path, remedy: str, under: str = '', at: Callable[[Path], Path] = lambda path: path, together: bool = False
) -> None:
    """Compares files with their digests; does nothing if `file` is not there, which older folders lack.

    Args:
      file: where the digests are, beside what they are of.
      remedy: the end of the message if one is damaged.
      under: the beginning of the names that are verified.
      at: path of a file there -> where it is read.
      together: whether every process calls this for the same files. On a disk that they share, each then reads its
        part, and all have the same result.

    Raises:
      UserError: a file is missing or differs; or `file` itself is damaged.
      OSError: a file cannot be read.
    """
    together = together and jax.process_count() > 1
    share = _share(file) if together else slice(None)
    try:
        damage, failure = _damage(file, under, at, share), None
    except OSError as error:
        damage, failure = None, error
    found = processes.gather([damage, failure and str(failure)]) if together else [[damage, None]]
    if failure:
        raise failure
    for process, (damage, of_storage) in enumerate(found):
        if of_storage:
            raise OSError(f'Process {process} cannot read what it verifies: {of_storage}')
        if damage:
            raise UserError(f'{damage} {remedy}')


def _share(file: Path) -> slice:
    """Which of the parts this process verifies: all, unless all processes see one and the same file."""
    if in_bucket(file):
        about = [str(file)]
    else:
        found: Any = file.stat() if file.exists() else None
        about = found and [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    every = processes.gather(about)
    shared = about is not None and all(of == about for of in every)
    return slice(jax.process_index(), None, jax.process_count()) if shared else slice(None)


def _damage(file: Path, under: str, at: Callable[[Path], Path], share: slice) -> str | None:
    """What is wrong with the first file of a share of the parts that has other bytes or another size; None if none."""
    if not file.exists():
        return None
    try:
        said = json.loads(file.read_bytes())
        part, digests = said['part'], {name: of for name, of in said['files'].items() if name.startswith(under)}
        parts = [(name, i, digest) for name, of in digests.items() for i, digest in enumerate(of['sha256'])]
        sizes = [(name, int(of['bytes'])) for name, of in digests.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f'{file} is damaged ({type(error).__name__}: {error}).'
    paths = {name: at(file.parent / name) for name in digests}

    def of_part(one: tuple[str, int, str]) -> str | None:
        name, i, digest = one
        if in_bucket(paths[name]):
            return None
        try:
            found = _sha256(paths[name], i, part)
        except FileNotFoundError:
            return f'{paths[name]} is missing.'
        return None if found == digest else _differs(paths[name])

    def of_size(one: tuple[str, int]) -> str | None:
        name, size = one
        try:
            return None if file_size(paths[name]) == size else _differs(paths[name])
        except FileNotFoundError:
            return f'{paths[name]} is missing.'

    bar: dict[str, Any] = dict(desc=f'verify {file.parent}', unit=' parts', delay=3, disable=jax.process_index() > 0)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        # Bytes first: a disk that fails may say that the size is 0.
        found = list(tqdm(threads.map(of_part, parts[share]), total=len(parts[share]), **bar))
        found += threads.map(of_size, sizes[share])
    return next(filter(None, found), None)


def is_pointer(path: Path) -> bool:
    """Whether a file is what a clone without Git LFS has in the place of a large one. OSError if it cannot be read."""
    with path.open('rb') as file:
        return file.read(len(_POINTER)) == _POINTER


def _differs(path: Path) -> str:
    if is_pointer(path):
        return f'{path} is not the file itself but what git has in its place: git lfs pull.'
    return f'{path} differs from its digest: it was damaged, or changed after it was written.'


def _parts(size: int) -> range:
    return range(max(1, -(-size // PART)))


def _sha256(path: Path, number: int, part: int) -> str:
    """Of one part of a file of this machine."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(_PIECE))
    with open(path, 'rb', buffering=0) as file:
        file.seek(number * part)
        left = part
        while left and (read := file.readinto(piece[: min(left, _PIECE)])):
            digest.update(piece[:read])
            left -= read
    return digest.hexdigest()
