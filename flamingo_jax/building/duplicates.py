"""What is the same in many pages, and in the benchmarks: hashes of texts, of runs of words, and of images."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64
from tqdm import tqdm

from flamingo_jax.building import texts
from flamingo_jax.building.image_checks import LookError, as_words, distance, look_at
from flamingo_jax.building.rules import PageRules
from flamingo_jax.errors import UserError

BANDS, ROWS, SHINGLE = 14, 8, 5  # FineWeb's: two texts of which .75 of the shingles agree share a band in 3 of 4 cases.
IMAGES = ('.jpg', '.jpeg', '.png', '.webp', '.gif', '.bmp', '.avif', '.jxl')


def text_key(text: str) -> bytes:
    """Eight bytes that agree for texts of the same words, whatever their case and punctuation."""
    return hashlib.blake2b(' '.join(texts.words(text)).encode('utf-8', 'replace'), digest_size=8).digest()


def runs_of_words(text: str, n: int) -> UInt64[np.ndarray, ' runs']:
    """A hash of each run of n words."""
    hashes = (
        hashlib.blake2b(' '.join(run).encode('utf-8', 'replace'), digest_size=8).digest() for run in texts.runs(text, n)
    )
    return np.frombuffer(b''.join(hashes), np.uint64)


def near_keys(text: str) -> list[bytes]:
    """Keys of which texts that are nearly the same share one (MinHash, Broder 1997; banded as in FineWeb)."""
    runs = np.unique(runs_of_words(text, SHINGLE))
    return keys_of_runs(runs) if len(runs) else []


def keys_of_runs(runs: UInt64[np.ndarray, ' runs']) -> list[bytes]:
    """A key for each band of the least hashes of a set."""
    multipliers, offsets = _permutations()
    least = np.full(BANDS * ROWS, np.iinfo(np.uint64).max, np.uint64)
    for some in np.array_split(runs, len(runs) // 1000 + 1):
        least = np.minimum(least, ((some[:, None] * multipliers + offsets) >> np.uint64(32)).min(0))
    bands = least.astype(np.uint32).reshape(BANDS, ROWS)
    return [bytes([i]) + hashlib.blake2b(band.tobytes(), digest_size=8).digest() for i, band in enumerate(bands)]


@functools.cache
def _permutations() -> tuple[np.ndarray, np.ndarray]:
    numbers = np.frombuffer(
        b''.join(hashlib.blake2b(b'%d' % i, digest_size=16).digest() for i in range(BANDS * ROWS)), '<u8'
    ).astype(np.uint64)
    return numbers[::2] | np.uint64(1), numbers[1::2]


class Benchmarks(NamedTuple):
    """The images and texts of evaluation sets."""

    looks: UInt64[np.ndarray, 'images 4']  # Perceptual hashes,
    names: list[str]  # and their files.
    runs: UInt64[np.ndarray, ' runs']  # Sorted.

    def image(self, look: bytes, most: int) -> str:
        """The file of a benchmark's image that looks like this one; '' if there is none, or `most` is 0."""
        if not most or not len(self.looks):
            return ''
        apart = distance(self.looks, look)
        return self.names[int(apart.argmin())] if apart.min() <= most else ''

    def text(self, text: str, n: int) -> bool:
        """Whether a text has a run of n words in common with a benchmark; never if n is 0."""
        if not n or not len(self.runs):
            return False
        runs = runs_of_words(text, n)
        at = np.searchsorted(self.runs, runs).clip(0, len(self.runs) - 1)
        return bool((self.runs[at] == runs).any())


def index_benchmarks(paths: Sequence[str], rules: PageRules, out: str) -> str:
    """Reads evaluation sets once and writes their hashes to the file `out`, which `open_benchmarks` opens.

    Args:
      paths: folders with images and .json, .jsonl, .csv, .tsv or .txt files, or such files.

    Raises:
      FileNotFoundError: a path does not exist, or holds no image and no text.
      ValueError: a file is no JSON, though its name says so.
    """
    looks, names, runs = [], [], []
    for path in map(pathlib.Path, paths):
        files = sorted(file for file in path.rglob('*') if file.is_file()) if path.is_dir() else [path]
        before = len(names) + len(runs)
        anything = rules.__class__(
            image_min_side=1,
            image_aspect=0.0,
            image_one_colour=0.0,
            image_formats=('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP'),
        )
        for file in tqdm(files, desc=path.name, unit=' files', delay=2):
            if file.suffix.lower() in IMAGES:
                try:
                    looks.append(look_at(file.read_bytes(), anything).hash)
                    names.append(str(file))
                except LookError:
                    continue  # What cannot be read here cannot be read by the benchmark.
            elif file.suffix.lower() in ('.json', '.jsonl', '.csv', '.tsv', '.txt'):
                runs += [runs_of_words(text, rules.benchmark_words) for text in _texts(file)]
        if len(names) + len(runs) == before:
            raise FileNotFoundError(f'The benchmark {path} has no images and no texts. Give its folder, or a file.')
    every = np.unique(np.concatenate(runs)) if runs else np.zeros(0, np.uint64)
    np.savez(out, looks=as_words(looks), names=np.array(names, str), runs=every)
    return out


@functools.cache
def open_benchmarks(path: str) -> Benchmarks:
    """The hashes in a file of `index_benchmarks`; none if the path is ''."""
    if not path:
        return Benchmarks(np.zeros((0, 4), np.uint64), [], np.zeros(0, np.uint64))
    with np.load(path) as file:
        return Benchmarks(file['looks'], [str(name) for name in file['names']], file['runs'])


def _texts(file: pathlib.Path) -> Iterator[str]:
    """Every text in a file."""
    ending = file.suffix.lower()
    with open(file, encoding='utf-8-sig', errors='replace') as lines:
        try:
            if ending == '.json':
                yield from _strings(json.load(lines))
                return
            for line in lines:
                if ending == '.jsonl' and line.strip():
                    yield from _strings(json.loads(line))
                else:
                    yield line
        except ValueError as error:
            raise UserError(f'The benchmark {file} cannot be read: {error}. Mend it, or leave it out.') from error


def _strings(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)
