"""The frozen trunk's features of a split, which `python -m flamingo_jax.features` computes once.

FOLDER/SPLIT.npy             float16 [images views t s d_v]
FOLDER/SPLIT.json            the data set and the trunk
FOLDER/SPLIT.digests.json    SHA-256 of the arrays (`parallel/digests.py`); absent in older folders
"""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.files import Path, as_path, local, persist, read_part
from flamingo_jax.inputs.images import Frames, ImageError, ImageFormat
from flamingo_jax.inputs.sources.json_lines import JsonLines
from flamingo_jax.parallel import digests

REMEDY = 'Compute them again: python -m flamingo_jax.features --data=... --vision=... --out=...'
LOOKED_AT = 64  # Records that identify a data set.
_VERIFIED: set[tuple[str, int, int]] = set()


def fingerprint(records: Sequence[dict[str, Any]]) -> str:
    """Identifies the records of a split, wherever they are stored.

    A .jsonl file, which its owner may edit, is known by all of its bytes and by the sizes of its images; a set that a
    builder wrote, by the number of its records and the bytes of some of them.
    """
    if isinstance(records, JsonLines):
        return records.digest
    digest = hashlib.sha256(f'{len(records)}'.encode())
    for i in np.unique(np.linspace(0, len(records) - 1, min(LOOKED_AT, len(records))).astype(int)):
        for name, value in sorted(records[int(i)].items()):
            digest.update(f'{name} {_plain(value)}'.encode())
    return digest.hexdigest()


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        return str(value)
    return ' '.join(_plain(item) for item in value)


def read_array(path: Path, mmap_mode: str | None = None) -> np.ndarray:
    """An array of the features, as `np.load` reads it.

    Raises:
      ValueError: the file is missing or damaged.
      OSError: it could not be read in several tries.
    """
    try:
        file = persist(lambda: local(path), path)
        return persist(lambda: np.load(file, mmap_mode=mmap_mode), file)
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise UserError(f'{path} is missing or damaged ({error}). {REMEDY}') from error


def views_of(folder: str, split: str) -> int:
    """The number of views of each image, itself included. ValueError if the file is missing or damaged."""
    return read_array(as_path(folder) / f'{split}.npy', mmap_mode='r').shape[1]


def format_of(folder: str, split: str) -> ImageFormat:
    """The format of the images that features were computed from, for whoever has no model at hand."""
    path = local(as_path(folder) / f'{split}.npy')
    about = json.loads((as_path(folder) / f'{split}.json').read_text())
    spatial, width = np.load(path, mmap_mode='r').shape[-2:]
    return ImageFormat(about['image_size'], about['fit'], spatial, width, about['trunk'])


class Features:
    """Features of the images of a split, read from the file when they are asked for.

    The file is not mapped: a disk that fails would kill the process that touches the map, without a word.

    Attributes:
      views: number of views of each image, itself included.
    """

    def __init__(
        self, folder: str, split: str, records: Sequence[dict[str, Any]], image_format: ImageFormat, frames: int
    ):
        """Opens the file.

        Args:
          folder, split: where the features command wrote.
          records: the records of the split.
          image_format: how the model takes images.
          frames: frames of each image.

        Raises:
          FileNotFoundError: the features were not computed, or not completely.
          ValueError: the features are of another data set, of another trunk, or of images read in another way; or
            they are damaged.
          OSError: a file cannot be read.
        """
        file = as_path(folder) / f'{split}.json'
        remedy = REMEDY
        if not file.is_file():
            raise FileNotFoundError(f'There are no features of the split {split!r} in {folder}. {remedy}')
        self._path = local(file.with_suffix('.npy'))
        try:
            found = json.loads(file.read_text())
            about = {name: found[name] for name in ('data', 'trunk', 'image_size', 'fit')}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f'{file} is damaged: {error!r}. {remedy}') from error
        if about['data'] != fingerprint(records):
            raise UserError(
                f'The features in {folder} are of another data set, or of an older version of this one. {remedy}'
            )
        expected = dict(trunk=image_format.trunk, image_size=image_format.size, fit=image_format.fit)
        wrong = {name: value for name, value in expected.items() if value and about[name] != value}
        here = json.loads(image_format.vision) if image_format.vision else {}
        there = found.get('vision') or here  # Absent in older features. A field that one side lacks is newer.
        if 'trunk' in wrong or any(there[field] != here[field] for field in there.keys() & here.keys()):
            raise UserError(f'The features in {folder} are from another trunk than that of this model. {remedy}')
        if wrong:
            remedy += f' --image_size={image_format.size}' if 'image_size' in wrong else ''
            found = ', '.join(f'{name} is {about[name]}, not {value}' for name, value in wrong.items())
            raise UserError(f'The features in {folder} are of images read in another way: {found}. {remedy}')
        array: Any = read_array(self._path, mmap_mode='r')  # A np.memmap.
        (number, self.views, *shape), self._offset = array.shape, array.offset
        self._shape, self._dtype = tuple(shape), array.dtype
        if number < len(records) and 'frames' in records[0]:  # One image a record, unlike in documents.
            raise UserError(f'{self._path} has {number} of {len(records)} images. {remedy}')
        if tuple(shape) != image_format.blank(frames, features=True).shape:
            raise UserError(
                f'The features in {folder} have the shape {tuple(shape)} (frames, features, channels), not '
                f'{image_format.blank(frames, features=True).shape}. Set `frames` of the data set to match. {remedy}'
            )
        self._verify(file.with_suffix(f'.{digests.FILE}'))

    def _verify(self, sums: Path) -> None:
        """Compares the file with its digests, once in a process: many data sets share features."""
        known = str(self._path), self._path.stat().st_size, self._path.stat().st_mtime_ns
        if known not in _VERIFIED:
            digests.verify(sums, REMEDY, at=local, together=True)
            _VERIFIED.add(known)

    def frames(self, index: int, view: int = 0) -> Frames:
        """float16 [t s d_v] of one view of image `index`.

        Raises:
          ImageError: the image could not be read when features were computed, or they are too large for float16.
          OSError: the file could not be read in several tries (`files.persist`).
        """
        size = math.prod(self._shape) * self._dtype.itemsize
        content = read_part(self._path, self._offset + (index * self.views + view) * size, size)
        features = np.frombuffer(content, self._dtype).reshape(self._shape)
        if not np.isfinite(features).all():
            raise ImageError(f'The features of image {index} in {self._path} are not finite: it could not be read.')
        return features
