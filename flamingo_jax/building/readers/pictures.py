"""Finds the pictures and films that a set names, and checks that each can be read, before training.

A set names a picture by a file's name or by a URL. The folder holds the files themselves, or what img2dataset wrote:
tars, or files, with a .json beside each picture that has its URL. An index by name and URL is made once and mapped
into memory, so that all workers share it.
"""

import base64
import contextlib
import hashlib
import io
import json
import os
import pathlib
import tarfile
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
from tqdm import tqdm

from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import json_file, parquet_rows
from flamingo_jax.inputs.films import to_film
from flamingo_jax.inputs.images import PictureError

LARGEST_SIDE, LARGEST_AREA = 20_000, 10**8  # Pixels. OBELICS has the same longest side.
LARGEST_FILM = 2**28  # Bytes.
PICTURES = ('.jpg', '.jpeg', '.png', '.webp', '.gif', '.bmp', '.tif', '.tiff')
FILMS = ('.mp4', '.webm', '.mkv', '.avi', '.mov', '.m4v', '.mpg', '.mpeg')
PLACE = np.dtype([('file', np.uint32), ('offset', np.uint64), ('length', np.uint64)])
PARTS = ('keys', 'places')  # The files of an index: sorted keys, and where each lies.


def picture_rule(data: bytes) -> str:
    """The rule that drops an encoded picture; '' keeps it. Decodes it, at reduced scale where the format can."""
    if not data:
        return 'picture_empty'
    if data[:512].lstrip().lower().startswith((b'<!doctype html', b'<html')):
        return 'picture_is_html'
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)  # The rule below is stricter.
            image = PIL.Image.open(io.BytesIO(data))
        width, height = image.size
        if max(width, height) > LARGEST_SIDE or width * height > LARGEST_AREA:
            return 'picture_too_large'
        image.draft('RGB', (64, 64))
        image.load()
    except PIL.Image.DecompressionBombError:
        return 'picture_too_large'
    except Exception:  # Each of PIL's decoders has its own errors for damaged data.
        return 'picture_unreadable'
    return ''


def film_rule(data: bytes) -> str:
    """The rule that drops an encoded clip; '' keeps it. Decodes its last seconds, as training would.

    Raises:
      ImportError: PyAV is not installed.
    """
    if not data:
        return 'film_empty'
    try:
        import av
    except ImportError as error:
        raise ImportError(f"Films are checked with PyAV: pip install 'flamingo_jax[films]' ({error}).") from error
    av.logging.set_level(av.logging.PANIC)
    if len(data) > LARGEST_FILM:
        return 'film_too_large'
    try:
        to_film(data, 2, 16, 'squash', start=1.0)
    except PictureError:
        return 'film_unreadable'
    return ''


class Pictures:
    """The files of a folder, by the names and URLs by which a set knows them."""

    def __init__(self, folder: str | None = None, index: str | None = None):
        """No folder: the set holds its pictures itself. index: what `make_index` made, if names are not paths."""
        self._folder, self._index = folder, index

    def read(self, name: Any) -> bytes | None:
        """The file of this path, base name or URL; None if there is none. A path never leads out of the folder."""
        if self._folder is None or not isinstance(name, str) or not name or '\0' in name:
            return None
        path = pathlib.PurePosixPath(name)
        if not path.is_absolute() and '..' not in path.parts and '://' not in name:
            with contextlib.suppress(OSError):
                return (pathlib.Path(self._folder) / path).read_bytes()
        return self._indexed(name)

    def _indexed(self, name: str) -> bytes | None:
        if self._index is None:
            return None
        if not hasattr(self, '_keys'):
            self._keys, self._places = (np.load(f'{self._index}.{part}.npy', mmap_mode='r') for part in PARTS)
            self._files = json.loads(pathlib.Path(f'{self._index}.json').read_text())
        key = np.uint64(_key(name))
        at = int(np.searchsorted(self._keys, key))
        if at == len(self._keys) or self._keys[at] != key:
            return None
        file, offset, length = self._places[at].tolist()
        try:
            with open(self._files[file], 'rb') as opened:
                opened.seek(offset)
                return opened.read(length)
        except OSError:
            return None

    def __getstate__(self):
        """Without the index, which each worker maps itself."""
        return dict(_folder=self._folder, _index=self._index)


def make_index(folder: str, out: str) -> int:
    """Indexes all pictures and films under a folder, and in its tars, by base name and by URL.

    `folder` may also be a file with pictures in base64: MIMIC-IT's images.parquet or XX.json. If two files have
    the same name, the first in the order of paths is found.

    Args:
      out: beginning of the names of the files to write.

    Returns:
      The number of pictures and films.

    Raises:
      ValueError: a file of base64 cannot be read.
    """
    files, keys, places, pictures = [], [], [], 0
    if os.path.isfile(folder):
        return _of_base64(folder, out)
    found = sorted(str(path) for path in pathlib.Path(folder).rglob('*') if path.is_file())
    for path in tqdm(found, unit=' files', desc='index of pictures', delay=2):
        if path.endswith('.tar'):
            inside = list(_in_tar(path))
        elif path.lower().endswith(PICTURES + FILMS):
            inside = [(os.path.basename(path), 0, os.path.getsize(path), _url_beside(path))]
        else:
            continue
        for name, offset, length, url in inside:
            for key in filter(None, (name, url)):
                keys.append(_key(key))
                places.append((len(files), offset, length))
        pictures += len(inside)
        files.append(path)
    _save(out, keys, places, files)
    return pictures


def _save(out: str, keys: list[int], places: list[tuple[int, int, int]], files: list[str]) -> None:
    order = np.argsort(np.array(keys, np.uint64), kind='stable')
    np.save(f'{out}.keys.npy', np.array(keys, np.uint64)[order])
    np.save(f'{out}.places.npy', np.array(places, PLACE)[order])
    pathlib.Path(f'{out}.json').write_text(json.dumps(files))


def _of_base64(path: str, out: str) -> int:
    """Writes the pictures of a file of base64 to OUT.pictures and indexes them."""
    keys, places, at = [], [], 0
    with open(f'{out}.pictures', 'wb') as file:
        for name, text in tqdm(_base64_rows(path), unit=' pictures', desc='index of pictures', delay=2):
            data = decoded(text)
            if data is not None:
                keys.append(_key(name))
                places.append((0, at, len(data)))
                at += file.write(data)
    _save(out, keys, places, [f'{out}.pictures'])
    return len(keys)


def _base64_rows(path: str) -> Iterator[tuple[str, str]]:
    """(id, base64) of a .json object, or of a .parquet file whose index or first other column is the id."""
    if path.lower().endswith('.parquet'):
        for row in parquet_rows(path, path):
            if isinstance(row, Dropped):
                raise ValueError(f'The pictures in {path} cannot be read: {row.excerpt}. Fetch the file again.')
            text = row.value.pop('base64', None)
            yield str(next(iter(row.value.values()), '')), text
        return
    row = json_file(path, path)
    if isinstance(row, Dropped) or not isinstance(row.value, dict):
        raise ValueError(f'The pictures in {path} cannot be read: it is no JSON object. Fetch the file again.')
    yield from row.value.items()


def decoded(text: Any) -> bytes | None:
    """The bytes of a text in base64, with or without 'data:image/png;base64,'; b'' if it is none, None without text."""
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text.partition(',')[2] if text.startswith('data:') else text)
    except ValueError:
        return b''


def _in_tar(path: str) -> Iterator[tuple[str, int, int, str]]:
    """(name, offset, length, URL) of each picture in a tar, as far as it is whole."""
    waiting: list[tuple[str, int, int]] = []
    with contextlib.suppress(tarfile.TarError, OSError, EOFError), tarfile.open(path, 'r:') as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()
            stem, ending = os.path.splitext(os.path.basename(member.name))
            if ending.lower() in PICTURES + FILMS:
                waiting.append((stem + ending, member.offset_data, member.size))
            elif ending == '.json':
                url = _url(tar.extractfile(member).read())
                for name, offset, length in waiting:
                    yield name, offset, length, url if os.path.splitext(name)[0] == stem else ''
                waiting = []
    for name, offset, length in waiting:
        yield name, offset, length, ''


def _url_beside(path: str) -> str:
    try:
        return _url(pathlib.Path(os.path.splitext(path)[0] + '.json').read_bytes())
    except OSError:
        return ''


def _url(data: bytes) -> str:
    """The URL in the .json that img2dataset writes beside a picture."""
    try:
        url = json.loads(data)['url']
    except (ValueError, LookupError, TypeError, RecursionError):
        return ''
    return url if isinstance(url, str) else ''


def _key(name: str) -> int:
    digest = hashlib.blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=8)
    return int.from_bytes(digest.digest(), 'little')
