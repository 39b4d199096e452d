"""The reader of WARC files, on files that warcio writes, damaged in every way."""

import concurrent.futures
import gzip
import zlib

import numpy as np
import pytest
import zstandard
from warcio.warcwriter import WARCWriter

from flamingo_jax.building import warc
from tests.building.web import Crawl
from tests.mutations import NUMBERS

URLS = [f'http://a.b/{i}' for i in range(5)]


def crawl(tmp_path, gzip: bool = True) -> Crawl:
    made = Crawl(tmp_path / 'crawl.warc.gz', gzip)
    for url in URLS:
        made.page(url, f'<p>{url}')
    return made


def read(path) -> list[str]:
    """The URLs that are read, and the names of damage."""
    found = list(warc.read_warc(str(path)))
    for one in found:
        if isinstance(one, warc.Response):
            assert warc.read_at(one.place).data == one.data
            assert one.url.encode() in one.data
    return [one.url if isinstance(one, warc.Response) else one.rule for one in found]


def by_records(made: Crawl) -> bytes:
    begins = [*made.begins, len(made.content())]
    parts = [made.content()[a:b] for a, b in zip(begins, begins[1:], strict=False)]
    return b''.join(zstandard.compress(part) for part in parts)


@pytest.mark.parametrize('packed', ['gzip', 'plain', 'zstd', 'gzip as a whole', 'zstd as a whole'])
def test_every_packing_is_read_and_read_again_by_place(tmp_path, packed):
    made = crawl(tmp_path, gzip=packed == 'gzip')
    whole = {'zstd': by_records, 'gzip as a whole': lambda m: gzip.compress(m.content()),
             'zstd as a whole': lambda m: zstandard.compress(m.content())}.get(packed, Crawl.content)  # fmt: skip
    made.path.write_bytes(whole(made))
    path, problem = warc.seekable(str(made.path), str(tmp_path))
    assert problem is None and (path != str(made.path)) == ('whole' in packed)
    assert read(path) == URLS


def test_threads_read_one_file_at_once(tmp_path):
    made = Crawl(tmp_path / 'crawl.warc.gz')
    for i in range(20):
        made.add(f'http://a.b/{i}', bytes([i]) * 200_000)
    places = [one.place for one in warc.read_warc(made.write())]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(warc.read_at, places * 10))
    assert [one.data[:1] for one in found] == [bytes([i]) for i in range(20)] * 10


def test_what_is_cut_short_is_told_and_the_rest_is_read(tmp_path):
    for gzipped in (True, False):
        made = crawl(tmp_path, gzipped)
        for cut in (3, 30, 90, 150):
            path = tmp_path / f'{gzipped}-{cut}.warc'
            path.write_bytes(made.content()[:-cut])
            *kept, told = read(path) if cut > 4 or gzipped else [*read(path), 'warc_corrupt']
            assert kept[:4] == URLS[:4]
            assert told in ('warc_corrupt', 'payload_truncated', URLS[4])
            assert cut < 90 or told != URLS[4]


def test_reading_goes_on_after_damage(tmp_path):
    made = crawl(tmp_path)
    data = bytearray(made.content())
    begin, end = made.begins[2:4]
    data[begin + 40 : end - 20] = bytes(end - begin - 60)
    path = tmp_path / 'damaged.warc.gz'
    path.write_bytes(data)
    found = read(path)
    assert [one for one in found if one in URLS] == [*URLS[:2], *URLS[3:]]
    assert 'warc_corrupt' in found


@pytest.mark.parametrize(
    'content, rule',
    [
        (b'', 'warc_empty'),
        (b'no archive', 'warc_corrupt'),
        (b'<html>' * 1000, 'warc_corrupt'),
        (gzip.compress(bytes(30_000_000)), 'warc_corrupt'),
    ],
)
def test_what_is_no_archive_is_told(tmp_path, content, rule):
    path = tmp_path / 'a.warc.gz'
    path.write_bytes(content)
    readable, _ = warc.seekable(str(path), str(tmp_path))
    assert set(read(readable)) == {rule}


def test_encodings_of_payloads(tmp_path, monkeypatch):
    made = Crawl(tmp_path / 'a.warc.gz')
    text = b'<p>hello</p>' * 20
    made.add('http://a/gzip', gzip.compress(text), Content_Encoding='gzip')
    made.add('http://a/deflate', zlib.compress(text), Content_Encoding='deflate')
    made.add('http://a/zstd', zstandard.compress(text), Content_Encoding='zstd')
    made.add('http://a/chunked', b'%x\r\n%b\r\n0\r\n\r\n' % (len(text), text), Transfer_Encoding='chunked')
    made.add('http://a/decoded', text, Content_Encoding='gzip', Transfer_Encoding='chunked')
    for start in ('', '\n', '\ufeff', '\ufeff\r\n '):
        made.add('http://a/decoded', start.encode() + text, Content_Encoding='br')
    made.add('http://a/cut', gzip.compress(text)[:-12], Content_Encoding='gzip')
    monkeypatch.setattr(warc, 'MOST', 10_000)
    made.add('http://a/bomb', gzip.compress(bytes(1_000_000)), Content_Encoding='gzip')
    made.add('http://a/large', bytes(20_000))
    *whole, cut, bomb, large = warc.read_warc(made.write())
    assert [one.data.decode().lstrip('\ufeff\r\n ').encode() for one in whole] == [text] * 9
    assert (cut.rule, bomb.rule, large.rule) == ('payload_damaged', 'payload_bomb', 'payload_bomb')


def test_what_has_no_place_on_the_web_is_told(tmp_path):
    made = Crawl(tmp_path / 'a.warc.gz')
    for url in ('http://[one.org/2', 'http://one℀.org/', 'urn:pageinfo:http://[a.b/', 'http://One.org:80/ä'):
        made.page(url, '<p>text')
    writer = WARCWriter(made.path.open('wb'), gzip=True)
    writer.out.write(made.content())
    writer.write_record(writer.create_revisit_record('http://a.b/', 'sha1:X', 'http://a.b/', '2025-01-01T00:00:00Z'))
    writer.out.close()
    found = [one for one in warc.read_warc(str(made.path)) if one != warc.Other('note')]
    assert [one.url if isinstance(one, warc.Response) else one.rule for one in found] == [
        'record_url', 'record_url', 'http://one.org/%C3%A4', 'record_revisit',
    ]  # fmt: skip


@pytest.mark.parametrize('number', NUMBERS)
def test_mutated_files_neither_hang_nor_raise(number, tmp_path):
    rng = np.random.default_rng(0)
    plain = crawl(tmp_path, False)
    sources = [crawl(tmp_path).content(), plain.content(), by_records(plain)]
    path = tmp_path / 'mutated.warc'
    for i in range(number):
        data = bytearray(sources[i % 3])
        for at in rng.integers(0, len(data), rng.integers(1, 8)):
            data[at] = rng.integers(256)
        if rng.random() < 0.3:
            data = data[: rng.integers(len(data))]
        if rng.random() < 0.2:
            a, b = sorted(rng.integers(0, len(data) + 1, 2))
            data[a:a] = data[a:b]
        path.write_bytes(data)
        readable, _ = warc.seekable(str(path), str(tmp_path))
        for one in warc.read_warc(readable):
            assert isinstance(one, warc.Response | warc.Damage | warc.Other)
