"""Finds the images and videos that a set names.

A set names an image by a file's name or by a URL. The folder holds the files by their names, at HOST/PATH, or named by
the SHA-256 of the URL; or what img2dataset wrote: tars, or files, with a .json beside each image that has its URL.
An index by name and URL is made once and mapped into memory, so that all workers share it.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import tarfile
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import json_file, parquet_rows
from flamingo_jax.building.readers.media_files import IMAGES, VIDEOS, decoded
from flamingo_jax.errors import UserError
from flamingo_jax.files import persist

ENTRY = np.dtype(
    [('key', '<u8'), ('path', '<u8'), ('path_length', '<u2'), ('offset', '<u8'), ('length', '<u8')]
)  # Of an index: a hash of the name, where its file's path is, and where it lies in that file.


# What a system says of a name under which there is no file: other errors are of a disk or a network.
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ)


class ImageFolder:
    """The files of a folder, by the names and URLs by which a set knows them."""

    def __init__(self, folder: str | None = None, index: str | None = None):
        """No folder: the set holds its images itself. index: what `make_index` made, if names are not paths."""
        self._folder, self._index = folder, index

    def read(self, name: Any) -> bytes | None:
        """The file of this path, base name or URL; None if there is none. A path never leads out of the folder.

        OSError if a disk or a network fails: no item is dropped for it.
        """
        if self._folder is None or not isinstance(name, str) or not name or '\0' in name:
            return None
        path = pathlib.PurePosixPath(name)
        if '://' in name:
            path = file_of_url(self._folder, name)
        elif path.is_absolute() or '..' in path.parts:
            path = ''
        if path:
            file = pathlib.Path(self._folder) / path
            if (content := _content(file, file.read_bytes)) is not None:
                return content
        found = self._indexed(name)
        if found is None:
            os.stat(self._folder)  # If it has gone away, as when a disk is unmounted, nothing may be dropped for it.
        return found

    def _indexed(self, name: str) -> bytes | None:
        if self._index is None or not os.path.getsize(f'{self._index}.keys'):
            return None
        if not hasattr(self, '_keys'):
            self._keys = np.memmap(f'{self._index}.keys', np.uint64, 'r')
            self._entries = np.memmap(f'{self._index}.places', ENTRY, 'r')
        key = np.uint64(_key(name))
        at = int(np.searchsorted(self._keys, key))
        if at == len(self._keys) or self._keys[at] != key:
            return None
        _, path_at, path_length, offset, length = self._entries[at].tolist()
        path = os.fsdecode(_part(f'{self._index}.paths', path_at, path_length))
        return persist(lambda: _part(path, offset, length), path)

    def __getstate__(self):
        """Without the index, which each worker maps itself."""
        return dict(_folder=self._folder, _index=self._index)


def _content(path: str | os.PathLike[str], read: Callable[[], bytes]) -> bytes | None:
    """What `read` gives of a file; None if there is no such file. OSError if a disk or a network fails."""
    try:
        return persist(read, path)
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        return None


def _part(path: str, offset: int, length: int) -> bytes:
    with open(path, 'rb') as opened:
        opened.seek(offset)
        return opened.read(length)


def file_of_url(folder: str, url: str) -> str:
    """The file of a URL in a folder, at HOST/PATH or named by the SHA-256 of the URL; '' if there is none."""
    if not folder:
        return ''
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError:  # Such as a host of brackets.
        return ''
    path = urllib.parse.unquote(parts.path).lstrip('/').replace('\0', '')
    hashed = hashlib.sha256(url.encode('utf-8', 'replace')).hexdigest()
    names = [f'{host}/{path}', hashed, f'{hashed}{pathlib.PurePosixPath(path).suffix}']
    if parts.query:
        names.insert(0, f'{host}/{path}?{parts.query}')  # As wget names it.
    for name in names:
        found = os.path.realpath(os.path.join(folder, name.replace('\0', '')))
        if found.startswith(os.path.realpath(folder) + os.sep) and os.path.isfile(found):
            return found
    return ''


def make_index(folder: str, out: str) -> int:
    """Indexes all images and videos under a folder, and in its tars, by base name and by URL.

    `folder` may also be a file with images in base64: MIMIC-IT's images.parquet or XX.json. If two files have the
    same name, the first in the order of paths is found. A sixty-fourth of the index is in memory at a time: of a
    billion images, about 1 GB.

    Args:
      out: beginning of the names of the files to write.

    Returns:
      The number of images and videos.

    Raises:
      ValueError: a file of base64 cannot be read.
    """
    with _Index(out) as index:
        if os.path.isfile(folder):
            return _of_base64(folder, out, index)
        images = 0
        for path in tqdm(_files(folder), unit=' files', desc='index of images', delay=2):
            if path.endswith('.tar'):
                inside = list(_in_tar(path))
            elif path.lower().endswith(IMAGES + VIDEOS):
                inside = [(os.path.basename(path), 0, os.path.getsize(path), _url_beside(path))]
            else:
                continue
            index.add(path, [(key, at, size) for name, at, size, url in inside for key in (name, url) if key])
            images += len(inside)
        return images


def _files(folder: str) -> Iterator[str]:
    for within, folders, names in os.walk(folder):
        folders.sort()
        yield from (os.path.join(within, name) for name in sorted(names))


class _Index:
    """Writes OUT.paths, the paths one after the other, OUT.keys, sorted, and OUT.places, in the order of the keys.

    Entries go to files by the first bits of their keys, so that only one part is sorted in memory at a time.
    """

    def __init__(self, out: str):
        self._out, self._names = out, [f'{out}.part-{part}' for part in range(64)]

    def __enter__(self) -> '_Index':
        self._paths, self._parts = open(f'{self._out}.paths', 'wb'), [open(name, 'wb') for name in self._names]
        return self

    def add(self, path: str, entries: list[tuple[str, int, int]]) -> None:
        """Adds (key, offset, length) of what is in a file."""
        encoded = os.fsencode(path)
        at = self._paths.tell()
        self._paths.write(encoded)
        rows = np.array([(_key(key), at, len(encoded), *place) for key, *place in entries], ENTRY)
        of_part = rows['key'] >> np.uint64(58)
        for part in np.unique(of_part):
            self._parts[part].write(rows[of_part == part].tobytes())

    def __exit__(self, *_) -> None:
        self._paths.close()
        with open(f'{self._out}.keys', 'wb') as keys, open(f'{self._out}.places', 'wb') as places:
            for name, part in zip(self._names, self._parts, strict=True):
                part.close()
                rows = np.fromfile(name, ENTRY)
                rows = rows[np.argsort(rows['key'], kind='stable')]
                keys.write(rows['key'].tobytes())
                places.write(rows.tobytes())
                os.remove(name)


def _of_base64(path: str, out: str, index: _Index) -> int:
    """Writes the images of a file of base64 to OUT.images and indexes them."""
    number = 0
    with open(f'{out}.images', 'wb') as file:
        for name, text in tqdm(_base64_rows(path), unit=' images', desc='index of images', delay=2):
            if (data := decoded(text)) is not None:
                index.add(file.name, [(name, file.tell(), len(data))])
                file.write(data)
                number += 1
    return number


def _base64_rows(path: str) -> Iterator[tuple[str, str]]:
    """(id, base64) of a .json object, or of a .parquet file whose index or first other column is the id."""
    if path.lower().endswith('.parquet'):
        for row in parquet_rows(path, path):
            if isinstance(row, Dropped):
                raise UserError(f'The images in {path} cannot be read: {row.excerpt}. Fetch the file again.')
            text = row.value.pop('base64', None)
            yield str(next(iter(row.value.values()), '')), text
        return
    row = json_file(path, path)
    if isinstance(row, Dropped) or not isinstance(row.value, dict):
        raise UserError(f'The images in {path} cannot be read: it is no JSON object. Fetch the file again.')
    yield from row.value.items()


def _in_tar(path: str) -> Iterator[tuple[str, int, int, str]]:
    """(name, offset, length, URL) of each image in a tar, as far as it is whole.

    The files of an image have one stem, and stand together by their endings: its .json follows a .jpg and comes before
    a .png or a .webp.
    """
    waiting: list[tuple[str, int, int]] = []
    last = url = ''
    with contextlib.suppress(tarfile.TarError, EOFError), tarfile.open(path, 'r:') as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  # Not in its stubs.
            stem, ending = os.path.splitext(member.name)
            if stem != last:
                yield from ((*one, url) for one in waiting)
                waiting, last, url = [], stem, ''
            if ending.lower() in IMAGES + VIDEOS:
                waiting.append((os.path.basename(member.name), member.offset_data, member.size))
            elif ending == '.json':
                url = _url(tar.extractfile(member).read())
    yield from ((*one, url) for one in waiting)


def _url_beside(path: str) -> str:
    beside = pathlib.Path(os.path.splitext(path)[0] + '.json')
    return _url(_content(beside, beside.read_bytes) or b'')


def _url(data: bytes) -> str:
    """The URL in the .json that img2dataset writes beside an image."""
    try:
        url = json.loads(data)['url']
    except (ValueError, LookupError, TypeError, RecursionError):
        return ''
    return url if isinstance(url, str) else ''


def _key(name: str) -> int:
    digest = hashlib.blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=8)
    return int.from_bytes(digest.digest(), 'little')
