"""WARC files -> the pages and images in them, in one pass or by position.

FastWARC reads them: gzip, zstd, lz4 and plain, with a bounded buffer. It stops at damage, so reading goes on at the
next record that can be found.
"""

import codecs
import gzip
import io
import os
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from fastwarc.stream_io import BrotliReader, ChunkedReader, Lz4Reader, ZstdReader
from fastwarc.warc import ArchiveIterator, WarcRecordType

from flamingo_jax.building.image_checks import format_of
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.page import join
from flamingo_jax.errors import UserError
from flamingo_jax.files import download, in_bucket

# How a record begins: the magic numbers of gzip, zstd and lz4, and plain text.
BEGINS = re.compile(rb'\x1f\x8b\x08[\x00-\x1f]|\x28\xb5\x2f\xfd|\x04\x22\x4d\x18|WARC/1\.[01]\r?\n')
READERS = {b'\x1f\x8b': gzip.open, b'\x28\xb5': ZstdReader, b'\x04\x22': Lz4Reader}
MOST = 50_000_000  # Bytes of a payload that are read.
MOST_TRIES = 1000  # Places at which reading goes on after damage.
MOST_UNPACKED = 20 * 2**30  # Bytes of a file that was compressed as a whole.
KINDS = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.metadata | WarcRecordType.revisit
HTML = ('text/html', 'application/xhtml+xml')
NO_TYPE = ('', 'application/octet-stream', 'application/unknown', 'unknown/unknown')
REDIRECTS = (301, 302, 303, 307, 308)


class Place(NamedTuple):
    """Where a record begins."""

    path: str
    offset: int


class Response(NamedTuple):
    """What a server answered."""

    place: Place
    url: str  # As `join` writes it.
    date: str  # ISO 8601, UTC.
    type: str  # 'text/html'; 'refused/RULE' if it was not fetched.
    charset: str  # As the server declared it; '' if it did not.
    status: int
    robots: tuple[str, ...]  # Every value of the header X-Robots-Tag,
    reservations: tuple[str, ...]  # and of TDM-Reservation.
    data: bytes
    moved: str = ''  # Where a redirect leads.


class Other(NamedTuple):
    """A record that tells nothing of a page or an image, such as a request."""

    kind: str


class Damage(NamedTuple):
    """A part of a file that is not read, and why."""

    rule: str
    offset: int
    said: str


def read_warc(path: str) -> Iterator[Response | Damage | Other]:
    """The records of a file, in order, responses and resources with their payloads decoded.

    `path` has to be `seekable`. Whatever is in the file, this ends and does not raise.
    """
    size, at, tries = os.path.getsize(path), 0, 0
    if not size:
        yield Damage('warc_empty', 0, '')
        return
    with open(path, 'rb') as file:
        while at is not None and at < size:
            last = at
            try:
                for record in _records(file, at):
                    last = at + record.stream_pos
                    yield from _response(record, Place(path, last))
                return
            except Exception as error:  # Rust's and zlib's errors; whatever it is, the rest is tried.
                yield Damage('warc_corrupt', last, f'{type(error).__name__}: {error}')
            tries += 1
            if tries > MOST_TRIES:
                yield Damage('warc_too_damaged', last, f'{tries} times')
                return
            at = _next(file, last + 1)


def is_page(found: Response) -> bool:
    """Whether a response is a page, whatever its URL says: by its type, and without one by how it begins."""
    if found.status != 200 or format_of(found.data):
        return False
    begin = found.data[:200].lstrip(codecs.BOM_UTF8 + b' \t\r\n').lower()
    return found.type in HTML or (found.type in NO_TYPE and begin.startswith((b'<!doctype html', b'<html')))


def read_at(place: Place) -> Response:
    """The response at a place that `read_warc` gave.

    Raises:
      ValueError: there is none any more; the file has changed.
    """
    with open(place.path, 'rb') as file:  # Of its own, since threads read at once.
        for record in _records(file, place.offset):
            for found in _response(record, place):
                if isinstance(found, Response):
                    return found
            break
    raise UserError(f'{place.path} has no response at {place.offset}. Do not change the file while it is read.')


def seekable(path: str, work: str) -> tuple[str, Dropped | None]:
    """A file whose records can be read by their positions: `path`, or its copy in the folder `work`.

    A file in a bucket is copied.

    Records have to be compressed one by one, as the standard asks. A file that was compressed as a whole is unpacked.
    """
    if in_bucket(path):
        copy = pathlib.Path(work, f'{zlib.crc32(path.encode()):08x}-{path.rpartition("/")[2]}')
        download(path, copy)
        path = str(copy)
    with open(path, 'rb') as file:
        reader = READERS.get(file.read(2))
        if reader is None or not _is_one_piece(path):
            return path, None
        file.seek(0)
        copy = pathlib.Path(work, f'{zlib.crc32(path.encode()):08x}-{pathlib.Path(path).name}.warc')
        written, problem = 0, None
        with open(copy, 'wb') as out:
            try:
                unpacked = reader(file)
                read = getattr(unpacked, 'read1', unpacked.read)  # Gives what there is before it meets damage.
                while block := read(2**20):
                    written += out.write(block)
                    if written > MOST_UNPACKED:
                        problem = Dropped('warc_bomb', 'file', path, excerpt=f'over {MOST_UNPACKED} bytes unpacked')
                        break
            except Exception as error:  # As above.
                problem = Dropped('warc_corrupt', 'file', path, excerpt=f'{type(error).__name__}: {error}')
    return str(copy), problem


def _is_one_piece(path: str) -> bool:
    """Whether the second record has no position of its own."""
    with open(path, 'rb') as file:
        begins = []
        try:
            for record in ArchiveIterator(file, parse_http=False):
                begins.append(record.stream_pos)
                if len(begins) == 3:
                    break
        except Exception:  # Damage is `read_warc`'s to tell.
            pass
    if len(begins) < 2:
        return False
    with open(path, 'rb') as file:
        file.seek(begins[1])
        return not BEGINS.match(file.read(16))


def _records(file: BinaryIO, at: int) -> Iterator[Any]:
    file.seek(at)
    return iter(ArchiveIterator(_From(file, at), record_types=WarcRecordType.any_type, strict_mode=False))


class _From:
    """A file as if it began later: positions count from there."""

    def __init__(self, file: BinaryIO, at: int):
        self._file, self._at = file, at

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def tell(self) -> int:
        return self._file.tell() - self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset + self._at if whence == 0 else offset, whence) - self._at

    def close(self) -> None:
        pass


def _response(record: Any, place: Place) -> Iterator[Response | Damage | Other]:
    """What a record is: one thing."""
    if not record.record_type & KINDS:
        yield Other(str(record.record_type))
        return
    written = (record.headers.get('WARC-Target-URI') or '').strip('<> ')
    if not written or not record.headers.get('Content-Length'):
        yield Damage('warc_corrupt', place.offset, 'A record has no URL or no length.')
        return
    url = join(written, written)
    if not url:
        if written.lower().startswith('http'):  # Others, such as urn:pageinfo:, are a crawler's notes.
            yield Damage('record_url', place.offset, written)
        else:
            yield Other('note')
        return
    if record.record_type == WarcRecordType.revisit:
        yield Damage('record_revisit', place.offset, url)
        return
    if record.record_type == WarcRecordType.metadata:
        refused = re.match(rb'flamingo-refused: (\w{1,40})', record.reader.read(200))
        if refused:  # By `fetch.py`, which says why an image is not there.
            date = record.headers.get('WARC-Date') or ''
            yield Response(place, url, date, f'refused/{refused[1].decode()}', '', 0, (), (), b'')
        else:
            yield Other('metadata')
        return
    headers = record.http_headers if record.is_http and record.http_headers is not None else None
    if record.record_type == WarcRecordType.resource:
        kind, status = (record.headers.get('Content-Type') or '').lower(), 200
    elif headers is None:  # Such as an answer of a name server.
        yield Other('response')
        return
    else:
        kind, status = (headers.get('Content-Type') or '').lower(), headers.status_code or 0
    data = record.reader.read(MOST + 1)
    if len(data) < min(record.content_length, MOST) or record.headers.get('WARC-Truncated'):
        yield Damage('payload_truncated', place.offset, url)
        return
    get = headers.get if headers is not None else lambda name: None
    try:
        data = _decoded(data, get('Transfer-Encoding'), get('Content-Encoding'))
    except Exception as error:  # The payload's own compression is damaged; the next record may be whole.
        yield Damage('payload_damaged', place.offset, f'{url} {type(error).__name__}: {error}')
        return
    if len(data) > MOST:
        yield Damage('payload_bomb', place.offset, url)
        return
    every = headers.get_multiple if headers is not None else lambda name: []
    date = record.headers.get('WARC-Date') or ''
    charset = re.search(r'charset\s*=\s*["\']?([\w.:-]{1,40})', kind)
    yield Response(
        place,
        url,
        date,
        kind.split(';')[0].strip(),
        charset[1] if charset else '',
        status,
        tuple(every('X-Robots-Tag')),
        tuple(every('TDM-Reservation')),
        data,
        join(url, get('Location') or '') if status in REDIRECTS else '',
    )


def _decoded(data: bytes, transfer: str | None, content: str | None) -> bytes:
    """A payload without the encodings that its headers name. Many writers decode it and leave the headers."""
    if 'chunked' in (transfer or '').lower() and re.match(rb'[0-9a-fA-F]{1,8}[ \t]*(;[^\r\n]*)?\r\n', data):
        data = ChunkedReader(io.BytesIO(data)).read(MOST + 1)
    for encoding in reversed((content or '').lower().split(',')):
        encoding = encoding.strip()
        gzipped = encoding in ('gzip', 'x-gzip') and data.startswith(b'\x1f\x8b')
        if gzipped or (encoding == 'deflate' and data[:1] == b'\x78'):
            unpack = zlib.decompressobj(47)  # Either of gzip and zlib.
            data = unpack.decompress(data, MOST + 1)
            if not unpack.eof and len(data) <= MOST:
                raise EOFError('cut short')
        elif encoding == 'zstd' and data.startswith(b'\x28\xb5\x2f\xfd'):
            data = ZstdReader(io.BytesIO(data)).read(MOST + 1)
        elif encoding == 'br' and data.lstrip(codecs.BOM_UTF8 + b' \t\r\n')[:1] != b'<':
            data = BrotliReader(io.BytesIO(data)).read(MOST + 1)
    return data


def _next(file: BinaryIO, at: int) -> int | None:
    """Where the next record may begin."""
    file.seek(at)
    overlap = b''
    while block := file.read(2**20):
        found = BEGINS.search(overlap + block)
        if found:
            return at - len(overlap) + found.start()
        at += len(block)
        overlap = block[-16:]
    return None
