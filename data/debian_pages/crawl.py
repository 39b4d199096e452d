"""Writes the pages of unpacked Debian packages as WARC files, as a crawler of the manual's site would have them."""

import hashlib
import io
import mimetypes
import os
import pathlib
from collections.abc import Iterator, Sequence

from tqdm import tqdm
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

SITE = 'https://docs.gimp.org/3.0'  # Where the same pages are on the web.
LICENCE = 'GFDL-1.2-or-later, without invariant sections (GIMP Documentation Team)'
DATE = '2025-03-16T00:00:00Z'  # Of GIMP 3.0, so that the files do not depend on the day.
PAGES_A_FILE = 200


def languages(raw: pathlib.Path) -> list[str]:
    """The languages that `fetch.sh` fetched."""
    return sorted(folder.name.removeprefix('gimp-help-') for folder in raw.glob('gimp-help-*') if folder.is_dir())


def write_warcs(raw: pathlib.Path, language: str, out: pathlib.Path) -> list[str]:
    """Writes one language as WARC files of so many pages, with the pictures in others. Returns their paths.

    Raises:
      FileNotFoundError: the package has no pages; `fetch.sh` has to be run again.
    """
    found = sorted(raw.glob(f'gimp-help-{language}/usr/share/gimp/*/help/*'))
    if not found:
        raise FileNotFoundError(
            f'{raw} has no manual in the language {language}. Run data/debian_pages/fetch.sh {raw} {language}.'
        )
    pages = sorted(found[0].rglob('*.html'))
    pictures = sorted(f for f in found[0].rglob('*') if f.suffix.lower() in ('.png', '.jpg', '.jpeg', '.gif', '.svg'))
    paths = []
    for kind, files in (('pages', pages), ('pictures', pictures)):
        for part, some in enumerate(_parts(files, PAGES_A_FILE)):
            path = out / f'{language}-{kind}-{part:03d}.warc.gz'
            aside = path.with_suffix('.writing')
            with open(aside, 'wb') as file:
                writer = WARCWriter(file, gzip=True)
                for one in tqdm(some, desc=path.name, unit=' files', leave=False, delay=2):
                    _write(writer, one, f'{SITE}/{language}/{one.relative_to(found[0])}')
            os.replace(aside, path)
            paths.append(str(path))
    return paths


def _write(writer: WARCWriter, file: pathlib.Path, url: str) -> None:
    kind = mimetypes.guess_type(file.name)[0] or 'application/octet-stream'
    headers = StatusAndHeaders('200 OK', [('Content-Type', kind)], protocol='HTTP/1.1')
    name = hashlib.sha256(url.encode()).hexdigest()
    uuid = f'<urn:uuid:{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:32]}>'
    fixed = {'WARC-Date': DATE, 'WARC-Record-ID': uuid}
    payload = io.BytesIO(file.read_bytes())
    writer.write_record(
        writer.create_warc_record(url, 'response', payload=payload, http_headers=headers, warc_headers_dict=fixed)
    )


def _parts(items: Sequence, size: int) -> Iterator[Sequence]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
