"""Opens tars, zips, JSON lines and Parquet: yields what is whole, and says what is damaged.

A damaged file gives its readable beginning, then a `Dropped` of the file. A damaged line or row costs only itself.
"""

import codecs
import gzip
import io
import json
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple, cast

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.errors import UserError

LARGEST_UNPACKED = 2**30  # Bytes of a file that must be read as a whole.
CHUNK = 2**20  # Characters that are read at once.
LONGEST_LINE, LARGEST_MEMBER = 2**26, 2**28  # Bytes. What is longer is dropped, and not read into memory.


class Row(NamedTuple):
    """One entry of a file, of whatever shape its author gave it."""

    where: str  # The file's name and the place in it: the identity of the document.
    value: Any


def documents(
    rows: Iterable[Row | Dropped], make: Callable[[Row], Iterable[Document | Dropped]]
) -> Iterator[Document | Dropped]:
    """What `make` yields for each row. A row of another shape than it expects is dropped as 'document_malformed'."""
    for row in rows:
        if isinstance(row, Dropped):
            yield row
            continue
        try:
            made = list(make(row))
        # What Python raises when a number is where a list should be, or a key is missing.
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            made = [Dropped('document_malformed', 'document', row.where, excerpt=f'{type(error).__name__}: {error}')]
        yield from made


def tar_members(path: str, name: str) -> Iterator[Row | Dropped]:
    """(name in the tar, bytes) of each file in a tar, which may be compressed."""
    try:
        with tarfile.open(path) as tar:
            while (member := tar.next()) is not None:
                # They would fill the memory.
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  # Not in its stubs.
                where = f'{name}#{member.name}'
                if not member.isfile():
                    continue
                if member.size > LARGEST_MEMBER:
                    yield Dropped('tar_member_too_large', 'file', where, value=member.size)
                    continue
                data = tar.extractfile(member).read()
                if len(data) < member.size:
                    raise tarfile.ReadError('unexpected end of data')
                yield Row(where, (member.name, data))
            # `tarfile` ends silently at a damaged header. A whole tar ends with a block of zeros.
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError('damaged header')
    except Exception as error:  # Each compression has its own errors for damaged data.
        yield _damaged('tar_damaged', name, error)


def tar_samples(path: str, name: str) -> Iterator[Row | Dropped]:
    """{extension: bytes} of each sample of a webdataset: neighbours whose names are equal up to the first dot."""
    key, sample = '', {}
    for row in tar_members(path, name):
        if isinstance(row, Dropped):
            yield row
            continue
        folder, _, file = row.value[0].rpartition('/')
        stem, _, extension = file.partition('.')
        of_row = f'{folder}/{stem}' if folder else stem
        if of_row != key or extension.lower() in sample:
            if sample:
                yield Row(f'{name}#{key}', sample)
            key, sample = of_row, {}
        sample[extension.lower()] = row.value[1]
    if sample:
        yield Row(f'{name}#{key}', sample)


def zip_members(path: str, name: str) -> Iterator[Row | Dropped]:
    """(name in the zip, open file) of each file in a zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    with archive.open(member) as file:
                        yield Row(f'{name}#{member.filename}', (member.filename, file))
    except Exception as error:  # Each compression has its own errors for damaged data.
        yield _damaged('zip_damaged', name, error)


def json_lines(file: BinaryIO, name: str) -> Iterator[Row | Dropped]:
    """The value of each line. The file may be compressed: damage in it ends the lines."""
    number = 0
    while True:
        number += 1
        where = f'{name}#{number}'
        try:
            line = file.readline(LONGEST_LINE)
            if len(line) == LONGEST_LINE:
                while (more := file.readline(LONGEST_LINE)) and not more.endswith(b'\n'):
                    pass
                yield Dropped('line_too_long', 'document', where)
                continue
        except Exception as error:  # Each compression has its own errors for damaged data.
            yield _damaged('file_damaged', name, error)
            return
        if not line:
            return
        if line.strip():
            yield parsed(line, where)


def parsed(data: bytes | str, where: str) -> Row | Dropped:
    """The value of a JSON text."""
    try:
        return Row(where, json.loads(data))
    except (ValueError, RecursionError) as error:
        excerpt = data[:100].decode(errors='replace') if isinstance(data, bytes) else data[:100]
        return Dropped('json_damaged', 'document', where, excerpt=f'{error}: {excerpt}')


def json_file(path: str, name: str) -> Row | Dropped:
    """The value of a whole file of JSON."""
    try:
        with opened(path) as file:
            data = file.read(LARGEST_UNPACKED if path.lower().endswith('.gz') else -1)
            if len(data) == LARGEST_UNPACKED:
                raise UserError(f'it unpacks to more than {LARGEST_UNPACKED} bytes')
            return parsed(data, name)
    except Exception as error:  # gzip has its own errors for damaged data.
        return _damaged('file_damaged', name, error)


def json_items(path: str, name: str) -> Iterator[Row | Dropped]:
    """The value of each item of a file that is one JSON list. One item is in memory at a time."""
    decoder = json.JSONDecoder()
    try:
        with io.TextIOWrapper(opened(path), encoding='utf-8', errors='replace') as file:
            text, number, size = file.read(CHUNK).lstrip('\ufeff \t\r\n'), 0, CHUNK
            if not text.startswith('['):
                raise UserError('it is not a list')
            text = text[1:]
            while True:
                text = text.lstrip(' \t\r\n,')
                if text.startswith(']'):
                    return
                try:
                    value, end = decoder.raw_decode(text)
                except (ValueError, RecursionError) as error:
                    more = file.read(size)  # Twice as much each time, since a long item is parsed anew.
                    if not more or len(text) > LONGEST_LINE:
                        raise UserError(f'item {number}: {error}') from error
                    text, size = text + more, 2 * size
                    continue
                yield Row(f'{name}#{number}', value)
                text, number, size = text[end:], number + 1, CHUNK
                text = text or file.read(CHUNK)
    except (EOFError, OSError, ValueError, zlib.error) as error:
        yield _damaged('json_damaged', name, error)


def parquet_rows(path: str, name: str, columns: Iterable[str] | None = None) -> Iterator[Row | Dropped]:
    """{column: value} of each row, a row group at a time. A damaged row group costs only itself.

    columns: those to read; the others may be large. None reads all.
    """
    import pyarrow.parquet  # Beam brings it in.

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except Exception as error:  # Arrow has many errors for damaged data.
        yield _damaged('parquet_damaged', name, error)
        return
    with file:
        chosen = None if columns is None else [column for column in columns if column in file.schema_arrow.names]
        begin = 0
        for group in range(file.num_row_groups):
            number = begin
            try:
                begin += file.metadata.row_group(group).num_rows
                for batch in file.iter_batches(64, [group], chosen):
                    for value in batch.to_pylist():
                        yield Row(f'{name}#{number}', value)
                        number += 1
            except Exception as error:
                yield _damaged('parquet_damaged', f'{name}, row group {group}', error)


def table_rows(path: str, name: str, columns: Iterable[str] | None = None) -> Iterator[Row | Dropped]:
    """{column: value} of each row of a Parquet file, or of an Arrow file of `datasets.save_to_disk`."""
    yield from (arrow_rows if extension(path) == '.arrow' else parquet_rows)(path, name, columns)


def arrow_rows(path: str, name: str, columns: Iterable[str] | None = None) -> Iterator[Row | Dropped]:
    """As `parquet_rows`, of an Arrow file, a stream or with random access. Of a damaged one, its beginning."""
    import pyarrow  # Beam brings it in.

    number = 0
    try:
        with pyarrow.memory_map(path) as source:
            if source.read(6) == b'ARROW1':
                file = pyarrow.ipc.open_file(source)
                batches = map(file.get_batch, range(file.num_record_batches))
            else:
                source.seek(0)
                batches = iter(pyarrow.ipc.open_stream(source))
            for batch in batches:
                chosen = batch if columns is None else batch.select([c for c in columns if c in batch.schema.names])
                for begin in range(0, len(chosen), 64):
                    for value in chosen.slice(begin, 64).to_pylist():
                        yield Row(f'{name}#{number}', value)
                        number += 1
    except Exception as error:  # Arrow has many errors for damaged data.
        yield _damaged('arrow_damaged', name, error)


def text_lines(path: str, name: str) -> Iterator[Row | Dropped]:
    """Each line of a text file, which may be compressed. Bytes that are no UTF-8 are replaced."""
    number = 0
    try:
        with opened(path) as file:
            while line := file.readline(LONGEST_LINE):
                number += 1
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)  # Else a part of the first column's name.
                yield Row(f'{name}#{number}', line.decode(errors='replace'))
    except Exception as error:  # gzip has its own errors for damaged data.
        yield _damaged('file_damaged', name, error)


def opened(path: str) -> BinaryIO:
    """An open file, which is decompressed if its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path)) if path.lower().endswith('.gz') else open(path, 'rb')


def extension(path: str) -> str:
    """The ending of a file's name, in lower case and without that of gzip: '.tar' of 'a.tar.gz' and 'a.tgz'."""
    path = path.lower()
    path = f'{path[:-4]}.tar' if path.endswith('.tgz') else path.removesuffix('.gz')
    return os.path.splitext(path)[1]


def _damaged(rule: str, where: str, error: Exception) -> Dropped:
    return Dropped(rule, 'file', where, excerpt=f'{type(error).__name__}: {error}')
