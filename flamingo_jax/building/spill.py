"""Sorts and groups records that are too many for memory: workers write them to files, and read them back in order.

Beam's own grouping would hold every record in the memory of the embedded runner. Here only the name of each file goes
through Beam. Beside each file lies its index, in the order of sort keys: the key, offset and length of each record.
"""

import bisect
import hashlib
import itertools
import operator
import pickle
import struct
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from flamingo_jax.building.runner import beam

MOST_RECORDS = 50_000  # Of a file: its index is in memory while it is written.
PARTS = 32  # Of what is grouped, at least, so that every worker has some,
PART_RECORDS = 100_000  # and about the most records of one: its index is in memory.
INDEX = np.dtype([('key', 'S16'), ('file', np.uint32), ('offset', np.uint64), ('length', np.uint32)])
ENTRY = struct.Struct('=16sIQI')  # The layout of INDEX, to add one entry at a time.


class Spilled(NamedTuple):
    """One file of records and its index, at PATH and PATH.index."""

    path: str
    records: int
    bytes: int


def sort_key(name: str) -> bytes:
    """Sixteen bytes that decide where a record stands: a hash, so that neighbours have nothing in common."""
    return hashlib.md5(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16].encode()


class Spill(beam.DoFn):
    """(name, bytes) -> Spilled, a few files a bundle. A bundle that is retried writes others."""

    def __init__(self, folder: str):
        """folder: which all workers can reach, and which exists."""
        self._folder = folder

    def start_bundle(self):
        """No file yet: many bundles are empty."""
        self._file, self._entries, self._at = None, bytearray(), 0

    def process(self, item):
        """Appends one record."""
        name, data = item
        if self._file is None:
            self._path = f'{self._folder}/{uuid.uuid4().hex}'
            self._file = _create(self._path)
        self._file.write(data)
        self._entries += ENTRY.pack(sort_key(name), 0, self._at, len(data))
        self._at += len(data)
        if len(self._entries) == MOST_RECORDS * ENTRY.size:
            yield self._complete()

    def finish_bundle(self):
        """Completes the last file."""
        if self._file is not None:
            everywhere = [beam.transforms.window.GlobalWindow()]
            yield beam.utils.windowed_value.WindowedValue(self._complete(), 0, everywhere)

    def _complete(self) -> Spilled:
        """Writes the index of the file, and names both."""
        self._file.close()
        with _create(f'{self._path}.index') as file:
            file.write(np.sort(np.frombuffer(self._entries, INDEX), order='key', kind='stable').tobytes())
        spilled = Spilled(self._path, len(self._entries) // ENTRY.size, self._at)
        self.start_bundle()
        return spilled


def read_sorted(files: Sequence[Spilled], part: int, parts: int) -> Iterator[tuple[bytes, bytes]]:
    """The (key, record) of one of several equal parts of the range of keys, in order.

    Records of the same key come in the order of their bytes, whichever files they are in. One record is in memory at a
    time, with the index of the part.
    """
    low, high = (f'{(part + end) * 16**16 // parts - 1:016x}'.encode() if part + end else b'' for end in (0, 1))
    indexes = []
    for number, spilled in enumerate(files):
        index = _index(spilled, low, high)
        index['file'] = number
        indexes.append(index)
    index = np.concatenate(indexes) if indexes else np.zeros(0, INDEX)
    index = index[np.argsort(index['key'], kind='stable')]
    opened: dict[int, object] = {}
    try:
        begin = 0
        for end in [*np.flatnonzero(index['key'][1:] != index['key'][:-1]) + 1, len(index)]:
            same = [_record(files, opened, entry) for entry in index[begin:end]]
            yield from ((bytes(index['key'][begin]), data) for data in sorted(same))
            begin = end
    finally:
        for file in opened.values():
            file.close()


class GroupOnDisk(beam.PTransform):
    """{name: (key, value)} -> (key, {name: values}), as CoGroupByKey. The values of one key are in memory at a time."""

    def __init__(self, folder: str):
        """folder: as of `Spill`. Keys have a `repr` that tells them apart, and values can be pickled."""
        super().__init__()
        self._folder = folder

    def expand(self, inputs):
        """Spills each input, and reads all of them by the ranges of their keys."""
        spilled = [
            items | f'pack {name}' >> beam.Map(_packed, name) | f'spill {name}' >> beam.ParDo(Spill(self._folder))
            for name, items in inputs.items()
        ]
        files = beam.pvalue.AsList(spilled | beam.Flatten())
        return (
            spilled[0].pipeline
            | 'start' >> beam.Create([None])
            | 'parts' >> beam.FlatMap(_parts, files)
            | 'spread' >> beam.Reshuffle()
            | 'groups' >> beam.FlatMap(_groups, files, tuple(inputs))
        )


def _packed(item: tuple[Any, Any], name: str) -> tuple[str, bytes]:
    key, value = item
    return repr(key), pickle.dumps((key, name, value))


def _parts(_, files: Sequence[Spilled]) -> Iterator[tuple[int, int]]:
    parts = max(PARTS, sum(file.records for file in files) // PART_RECORDS)
    yield from ((part, parts) for part in range(parts))


def _groups(of_parts: tuple[int, int], files: Sequence[Spilled], names: Sequence[str]) -> Iterator:
    for _, same in itertools.groupby(read_sorted(sorted(files), *of_parts), key=operator.itemgetter(0)):
        groups: dict[Any, dict[str, list]] = {}  # Two keys may have one sort key.
        for _, data in same:
            key, name, value = pickle.loads(data)  # This build wrote it.
            groups.setdefault(key, {name: [] for name in names})[name].append(value)
        yield from groups.items()


def _index(spilled: Spilled, low: bytes, high: bytes) -> np.ndarray:
    """The entries of the keys above `low` and up to `high`."""
    with _open(f'{spilled.path}.index') as file:

        def key(entry: int) -> bytes:
            file.seek(entry * INDEX.itemsize)
            return file.read(INDEX['key'].itemsize)

        begin, end = (bisect.bisect_right(range(spilled.records), bound, key=key) for bound in (low, high))
        file.seek(begin * INDEX.itemsize)
        return np.frombuffer(bytearray(file.read((end - begin) * INDEX.itemsize)), INDEX)


def _record(files, opened, entry) -> bytes:
    number = int(entry['file'])
    if number not in opened:
        if len(opened) >= 100:  # The system's limit is often 256.
            opened.pop(next(iter(opened))).close()
        opened[number] = _open(files[number].path)
    opened[number].seek(int(entry['offset']))
    return opened[number].read(int(entry['length']))


def _create(path):
    return beam.io.filesystems.FileSystems.create(path, 'application/octet-stream', UNCOMPRESSED)


def _open(path):
    return beam.io.filesystems.FileSystems.open(path, 'application/octet-stream', UNCOMPRESSED)


UNCOMPRESSED = beam.io.filesystem.CompressionTypes.UNCOMPRESSED
