"""WARC files and images for the tests, as a crawler writes them."""

import io
import pathlib

import numpy as np
import PIL.Image
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from flamingo_jax.building.fetch import REFUSED

PROSE = (
    'The old lighthouse stands on a rock at the end of the bay, and its keeper climbs the stairs every evening. '
    'From the top you can see the fishing boats that come home before the storm.'
)


def encoded_image(seed: int, width: int = 200, height: int = 150, format: str = 'PNG') -> bytes:
    """An image unlike all others: blurred noise in colours."""
    rng = np.random.default_rng(seed)
    small = PIL.Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
    made = io.BytesIO()
    small.resize((width, height), PIL.Image.Resampling.BICUBIC).save(made, format)
    return made.getvalue()


WORDS = (
    'water house river mountain garden window letter morning evening winter summer table bread butter kitchen market '
    'village church bridge forest animal farmer sailor teacher doctor brother sister mother father children story '
    'image music paper glass stone copper silver golden yellow green purple quiet little heavy empty narrow broken '
    'friendly carried opened followed painted remembered answered watched gathered planted travelled covered '
    'finished counted between around behind through without against during before after beneath toward along'
).split()


def story(seed: int, words: int = 60) -> str:
    """English of a kind, unlike all other stories: ten words a sentence, every other one a frequent one."""
    rng = np.random.default_rng(seed)
    frequent = 'the and of to in that it was for on with as at by from this'.split()
    made = [frequent[rng.integers(16)] if i % 2 else WORDS[rng.integers(len(WORDS))] for i in range(words)]
    return ' '.join(' '.join(made[i : i + 10]).capitalize() + '.' for i in range(0, words, 10))


class Crawl:
    """A WARC file in the making."""

    def __init__(self, path: pathlib.Path, gzip: bool = True):
        self.path, self._gzip, self._buffer = path, gzip, io.BytesIO()
        self.begins = []

    def add(
        self,
        url: str,
        data: bytes,
        kind: str = 'text/html',
        status: str = '200 OK',
        date='2026-01-01T00:00:00Z',
        **headers,
    ):
        """Adds a response. A header may have a list of values: it is sent as often."""
        self.begins.append(self._buffer.tell())
        named = [
            (name.replace('_', '-'), one)
            for name, value in headers.items()
            for one in (value if isinstance(value, list) else [value])
        ]
        http = StatusAndHeaders(status, [('Content-Type', kind), *named], protocol='HTTP/1.1')
        writer = WARCWriter(self._buffer, gzip=self._gzip)
        record = writer.create_warc_record(
            url, 'response', payload=io.BytesIO(data), http_headers=http, warc_headers_dict={'WARC-Date': date}
        )
        writer.write_record(record)
        return self

    def page(self, url: str, body: str, **rest):
        """Adds a page."""
        return self.add(url, f'<!doctype html><meta charset=utf-8><body>{body}'.encode(), **rest)

    def png(self, url: str, seed: int, **rest):
        """Adds an image."""
        return self.add(url, encoded_image(seed, **rest), 'image/png')

    def refused(self, url: str, rule: str, date: str):
        """Adds a note of the fetcher that it has not fetched an image."""
        writer = WARCWriter(self._buffer, gzip=self._gzip)
        data, dated = io.BytesIO(f'{REFUSED}: {rule}\r\n'.encode()), {'WARC-Date': date}
        writer.write_record(writer.create_warc_record(url, 'metadata', payload=data, warc_headers_dict=dated))
        return self

    def content(self) -> bytes:
        """The file's bytes."""
        return self._buffer.getvalue()

    def write(self) -> str:
        """Writes the file and returns its path."""
        self.path.write_bytes(self.content())
        return str(self.path)
