"""Your own documents: a folder of images with a file of JSON lines that gives the reading order.

    ["Three weeks old.", {"image": "pets/a.jpg"}, "My puppy sitting in the grass.", {"image": "pets/b.jpg"}, "My cat."]
    [{"image": "c.png"}, {"text": "Question: What is this? Answer:", "weight": 0}, " a wug"]
    [{"video": "hop.webp"}, "A rabbit hops.", {"video": ["fall/1.png", "fall/2.png"]}, "A leaf falls."]

A line is one document: its parts in reading order. A string is a text that is learnt. A text with a weight is learnt
with that weight; 0 means that it is read but not learnt. Paths of images are relative to the file's folder; a letter
with an accent may be one character there and two in the file, or the other way. A video is a clip, or a list of frames.
"""

import hashlib
import json
import os
import pathlib
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from flamingo_jax.errors import UserError
from flamingo_jax.files import Path, as_path, file_size, local, persist
from flamingo_jax.inputs.tokenizer import IMAGE

LINE = 'A line is a list of texts and images, such as [{"image": "a.png"}, "My cat."] (data/README.md).'


HEAVIEST = 1_000_000  # The sum over a batch is a float32.
KEYS = (['image'], ['video'], ['text'], ['text', 'weight'])


class JsonLines(Sequence):
    """The documents of a file, as records like those of a prepared data set. Images are paths.

    Only the position of each line is kept in memory.

    Attributes:
      digest: of the lines and of the sizes of their images.
    """

    def __init__(self, path: str | Path):
        """Reads every line once and checks that its images exist.

        Raises:
          FileNotFoundError: there is no such file, or an image is missing; the message names file, line and image.
          ValueError: a line is not a document; the message names file and line, and says what is wrong.
        """
        self._path = as_path(path)
        if not self._path.is_file():
            raise FileNotFoundError(f'There is no file {self._path}. Give the .jsonl file of the documents.')
        begins, at, digest = [], 0, hashlib.sha256()
        self._lines = local(self._path)
        with open(self._lines, 'rb') as file:
            bar = tqdm(total=os.path.getsize(self._lines), unit='B', unit_scale=True, desc=self._path.name, delay=2)
            for number, line in enumerate(file, start=1):
                digest.update(line)
                if line.strip():
                    for image in self._checked(line, number):
                        digest.update(b'%d ' % image)
                    begins.append(at)
                at += len(line)
                bar.update(len(line))
            bar.close()
        if not begins:
            raise UserError(f'{self._path} has no documents. {LINE}')
        self._begins, self.digest = np.array(begins), digest.hexdigest()

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Document `index`: parallel `texts` (UTF-8), `images` (paths) and `weights`.

        Each place has a text or an image.
        """
        parts = json.loads(persist(lambda: self._line(index), self._lines))
        record: dict[str, list[Any]] = dict(texts=[], images=[], weights=[])
        for part in parts:
            part = dict(text=part) if isinstance(part, str) else part
            record['texts'].append(part.get('text', '').encode())
            shown = part.get('image', part.get('video'))
            if isinstance(shown, list):
                record['images'].append([self._image(name) for name in shown])
            else:
                record['images'].append(self._image(shown) if shown else b'')
            record['weights'].append(part.get('weight', 1.0))
        return record

    def _line(self, index: int) -> bytes:
        with open(self._lines, 'rb') as file:  # Opened each time, so that threads and processes can read at once.
            file.seek(self._begins[index])
            return file.readline()

    def _checked(self, line: bytes, number: int) -> list[int]:
        """The sizes in bytes of the images of a line. Raises if it is not a document."""
        where = f'{self._path}, line {number}'
        try:
            parts = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f'{where} is not JSON ({error}). {LINE}') from error
        if not isinstance(parts, list):
            raise UserError(f'{where} is {_kind(parts)}, not a list. {LINE}')
        learnt, sizes = False, []
        for place, part in enumerate(parts, start=1):
            part, which = dict(text=part) if isinstance(part, str) else part, f'{where}: part {place}'
            if not isinstance(part, dict) or sorted(part) not in KEYS:
                found = f'has the keys {sorted(part)}' if isinstance(part, dict) else f'is {_kind(part)}'
                raise UserError(
                    f'{which} {found}. It must be a text, {{"text": ...}} with or without "weight", '
                    '{"image": ...} or {"video": ...}.'
                )
            if 'text' not in part:
                shown = part.get('image', part.get('video'))
                for name in shown if isinstance(shown, list) and shown and 'video' in part else [shown]:
                    sizes.append(self._size(name, which))
            else:
                learnt |= bool(_check_text(part, which) and part['text'])
        if not learnt:
            raise UserError(
                f'{where} has no text with a weight above 0: there is nothing to learn. Add a text, or delete the line.'
            )
        return sizes

    def _image(self, name: str) -> Path:
        """The path of an image. On a Mac, its name may have a letter and its accent as two characters (NFD)."""
        named = self._path.parent / name
        if name.isascii() or named.is_file():
            return named
        others = (self._path.parent / unicodedata.normalize(form, name) for form in ('NFC', 'NFD'))
        return next((other for other in others if other.is_file()), named)

    def _size(self, name: Any, which: str) -> int:
        """The size of an image's file in bytes. Raises if there is none."""
        if not isinstance(name, str) or not name:
            raise UserError(f'{which}: its image is {_kind(name)}. It must be the path of a file.')
        if os.path.isabs(name) or '..' in pathlib.PurePath(name).parts:
            raise UserError(
                f'{which}: the image {name!r} is outside {self._path.parent}. Give its path relative to that '
                'folder, or link to it from there.'
            )
        image = self._image(name)
        if not image.is_file():
            raise FileNotFoundError(
                f'{which}: the image {name!r} is not in {self._path.parent}. Put it there, or delete the line.'
            )
        return file_size(image)


def _check_text(part: dict[str, Any], which: str) -> float:
    """The weight of a text. ValueError says what is wrong with it."""
    text, weight = part['text'], part.get('weight', 1.0)
    if not isinstance(text, str):
        raise UserError(f'{which}: its "text" is {_kind(text)}, not a string.')
    if IMAGE in text:
        raise UserError(f'{which} has {IMAGE} in its text. Replace it by a part {{"image": ...}}.')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f'{which} is not valid UTF-8 ({error}).') from error
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= HEAVIEST:
        raise UserError(f'{which}: its "weight" is {weight!r}. It must be a number from 0 to {HEAVIEST:,}.')
    return float(weight)


def _kind(value: Any) -> str:
    kinds = {dict: 'an object', list: 'a list', str: 'a string', bool: 'true or false', type(None): 'null'}
    return kinds.get(type(value), 'a number') if value != '' else 'empty'
