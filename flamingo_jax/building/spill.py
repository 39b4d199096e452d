"""Sorts and groups records that are too many for memory: workers write them to files, and read them back in order.

Beam's own grouping would hold every record in the memory of the embedded runner. Here only the name of each file goes
through Beam. Beside each file lies its index, in the order of sort keys: the key, offset and length of each record.
"""

import bisect
import hashlib
import pickle
import struct
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from flamingo_jax.building.runner import beam

MOST_RECORDS = 50_000  # Of a file: its index is in memory while it is written.
PARTS = 32  # Of what is grouped, at least, so that every worker has some,
PART_RECORDS = 100_000  # and about the most records of one: its index is in memory.
TOGETHER = 10_000  # Most records of one key that are in memory.
KEYS = 16**16  # How many sort keys there are.
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

    Records of the same key come in the order of their bytes, whichever files they are in. The records of one key are in
    memory at a time, with the index of the part.
    """
    with _Reader(files) as reader:
        for key, entries in _by_key(_entries(files, _spans(files, *_bounds(part, parts)))):
            yield from ((key, data) for data in sorted(map(reader.record, entries)))


class GroupOnDisk(beam.PTransform):
    """{name: (key, value)} -> (key, {name: values}), as CoGroupByKey.

    Values come in no order, and may be gone through several times. At most TOGETHER records of a key are in memory: if
    it has more, its values are read from the files each time.
    """

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
    with _Reader(files) as reader:
        for begin, end, spans in _ranges(files, *_bounds(*of_parts)):
            if end - begin == 1:  # One sort key, whose index may be more than memory holds.
                groups = [(_sort_key(begin), None)]
            else:
                groups = _by_key(_entries(files, spans))
            for key, entries in groups:
                if entries is None or len(entries) > TOGETHER:
                    records = _Records(files, int(key, 16))
                else:
                    records = [pickle.loads(reader.record(entry)) for entry in entries]  # This build wrote it.
                # Two keys may have one sort key.
                for same in {key for key, _, _ in records}:
                    yield same, {name: _Values(records, same, name) for name in names}


class _Records:
    """The (key, name, value) of a sort key, read from the files each time."""

    def __init__(self, files: Sequence[Spilled], key: int):
        self._files, self._spans = files, _spans(files, key, key + 1)

    def __iter__(self):
        for file, span in zip(self._files, self._spans, strict=True):
            with _Reader([file]) as reader:
                for entry in _entries([file], [span]):
                    yield pickle.loads(reader.record(entry))


class _Values:
    """The values of a key from one input."""

    def __init__(self, records: Iterable[tuple[Any, str, Any]], key: Any, name: str):
        self._records, self._key, self._name = records, key, name

    def __iter__(self):
        return (value for key, name, value in self._records if name == self._name and key == self._key)


def _bounds(part: int, parts: int) -> tuple[int, int]:
    """The range of sort keys of a part, as numbers."""
    return part * KEYS // parts, (part + 1) * KEYS // parts


def _ranges(files: Sequence[Spilled], begin: int, end: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """A range of sort keys in pieces whose index fits in memory, of few records or of one key, with their `_spans`."""
    spans = _spans(files, begin, end)
    if end - begin == 1 or sum(last - first for first, last in spans) <= 2 * PART_RECORDS:
        yield begin, end, spans
    else:
        middle = (begin + end) // 2
        yield from _ranges(files, begin, middle)
        yield from _ranges(files, middle, end)


def _spans(files: Sequence[Spilled], begin: int, end: int) -> list[tuple[int, int]]:
    """Which entries of each file are in a range of sort keys."""
    spans = []
    for file in files:
        with _open(f'{file.path}.index') as opened:

            def key(entry: int, opened=opened) -> bytes:
                opened.seek(entry * INDEX.itemsize)
                return opened.read(INDEX['key'].itemsize)

            every = range(file.records)
            first = bisect.bisect_left(every, _sort_key(begin), key=key) if begin else 0
            last = bisect.bisect_left(every, _sort_key(end), key=key) if end < KEYS else file.records
        spans.append((first, last))
    return spans


def _entries(files: Sequence[Spilled], spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """The entries of a range of sort keys, in their order."""
    indexes = [np.zeros(0, INDEX)]
    for number, (file, (first, last)) in enumerate(zip(files, spans, strict=True)):
        if first < last:
            with _open(f'{file.path}.index') as opened:
                opened.seek(first * INDEX.itemsize)
                index = np.frombuffer(bytearray(opened.read((last - first) * INDEX.itemsize)), INDEX)
            index['file'] = number
            indexes.append(index)
    index = np.concatenate(indexes)
    return index[np.argsort(index['key'], kind='stable')]


def _by_key(index: np.ndarray) -> Iterator[tuple[bytes, np.ndarray]]:
    """Each sort key, with its entries."""
    begin = 0
    for end in [*np.flatnonzero(index['key'][1:] != index['key'][:-1]) + 1, len(index)]:
        if end:
            yield bytes(index['key'][begin]), index[begin:end]
        begin = end


def _sort_key(number: int) -> bytes:
    return b'%016x' % number


class _Reader:
    """Reads records. Few files are open at a time."""

    def __init__(self, files: Sequence[Spilled]):
        self._files, self._opened = files, {}

    def __enter__(self) -> '_Reader':
        return self

    def __exit__(self, *_) -> None:
        for file in self._opened.values():
            file.close()

    def record(self, entry: np.void) -> bytes:
        """The record of an entry."""
        number = int(entry['file'])
        if number not in self._opened:
            if len(self._opened) >= 100:  # The system's limit is often 256.
                self._opened.pop(next(iter(self._opened))).close()
            self._opened[number] = _open(self._files[number].path)
        self._opened[number].seek(int(entry['offset']))
        return self._opened[number].read(int(entry['length']))


def _create(path):
    return beam.io.filesystems.FileSystems.create(path, 'application/octet-stream', UNCOMPRESSED)


def _open(path):
    return beam.io.filesystems.FileSystems.open(path, 'application/octet-stream', UNCOMPRESSED)


UNCOMPRESSED = beam.io.filesystem.CompressionTypes.UNCOMPRESSED
