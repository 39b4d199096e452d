"""Writes the manuals in unpacked Debian packages as WARC files, as a crawler of their sites would have them."""

import hashlib
import io
import mimetypes
import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tqdm import tqdm
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

PAGES_A_FILE = 200
# A sky culture says its licence in an info.ini. Those that forbid changes or commerce are left out.
RESTRICTED = re.compile(r'^license\s*=.*\bN[CD]\b', re.MULTILINE)
IMAGES = ('.png', '.jpg', '.jpeg', '.gif', '.svg', '.webp')


class Manual(NamedTuple):
    """A manual, in packages of one language each or in one package for all."""

    packages: str  # The packages; * is the language, if each has its own.
    folders: str  # In a package, the folder with the pages; * is the language, if there are several.
    site: str  # Where the same pages are on the web, with one folder in the path.
    date: str  # Of the release, so that the files do not depend on the day.
    licence: str
    pages: str = '*.html'  # Names of its pages, with their {language} if one folder holds all.


MANUALS = {
    'gimp': Manual(
        'gimp-help-*',
        'usr/share/gimp/*/help/*',
        'https://docs.gimp.org/3.0',
        '2025-03-16T00:00:00Z',
        'GFDL-1.2-or-later, without invariant sections (GIMP Documentation Team)',
    ),
    'debian-handbook': Manual(
        'debian-handbook',
        'usr/share/doc/debian-handbook/html/*',
        'https://debian-handbook.info/browse',
        '2022-09-22T00:00:00Z',
        'GPL-2.0-or-later or CC-BY-SA-3.0 (Raphaël Hertzog, Roland Mas, Freexian)',
    ),
    'kicad': Manual(
        'kicad-doc-*',
        'usr/share/doc/kicad/help/*',
        'https://docs.kicad.org/9.0',
        '2025-05-01T00:00:00Z',
        'GPL-3.0-or-later (KiCad developers)',
    ),
    'scikit-learn': Manual(
        'python-sklearn-doc',
        'usr/share/doc/python-sklearn-doc/html',
        'https://scikit-learn.org/1.4',
        '2024-04-09T00:00:00Z',
        'BSD-3-Clause (scikit-learn developers)',
    ),
    'stellarium': Manual(
        'stellarium-data',
        'usr/share/stellarium/skycultures',
        'https://stellarium.org/24.3',
        '2024-09-22T00:00:00Z',
        'GPL-2.0-or-later, CC-BY-SA or Free Art License, as the info.ini of each sky culture says (Stellarium)',
        'description.{language}.utf8',
    ),
}


def folders(raw: pathlib.Path, manual: Manual) -> dict[str, pathlib.Path]:
    """The folder of each language that `fetch.sh` fetched."""
    unpacked = raw / 'x'
    if '*' in manual.packages:
        found = sorted(unpacked.glob(manual.packages))
        languages = [package.name.removeprefix(manual.packages[:-1]) for package in found]
        pages = [sorted(package.glob(manual.folders)) for package in found]
        return {language: some[0] for language, some in zip(languages, pages, strict=True) if some}
    found = sorted((unpacked / manual.packages).glob(manual.folders))
    if '{language}' in manual.pages:
        pages = [file for folder in found for file in folder.rglob(manual.pages.format(language='*'))]
        return dict.fromkeys(sorted({file.name.split('.')[1] for file in pages}), *found)
    several = manual.folders.endswith('*')
    return {folder.name if several else 'en': folder for folder in found if folder.is_dir()}


def write_warcs(manual: Manual, folder: pathlib.Path, language: str, out: pathlib.Path) -> list[str]:
    """Writes one language as WARC files of so many pages, with the images in others. Returns their paths."""
    restricted = {
        file.parent for file in folder.rglob('info.ini') if RESTRICTED.search(file.read_text(errors='replace'))
    }
    files = [file for file in sorted(folder.rglob('*')) if not restricted & {*file.parents}]
    pages = [file for file in files if file.match(manual.pages.format(language=language))]
    images = [file for file in files if file.suffix.lower() in IMAGES]
    paths = []
    for kind, files in (('pages', pages), ('images', images)):
        for part, some in enumerate(_parts(files, PAGES_A_FILE)):
            path = out / f'{language}-{kind}-{part:03d}.warc.gz'
            aside = path.with_suffix('.writing')
            with open(aside, 'wb') as file:
                writer = WARCWriter(file, gzip=True)
                for one in tqdm(some, desc=path.name, unit=' files', leave=False, delay=2):
                    name = urllib.parse.quote(str(one.relative_to(folder)), safe="/+!$,;'@()*[]=&~")
                    _write(writer, one, f'{manual.site}/{language}/{name}', manual.date)
            os.replace(aside, path)
            paths.append(str(path))
    return paths


def _write(writer: WARCWriter, file: pathlib.Path, url: str, date: str) -> None:
    is_image = file.suffix.lower() in IMAGES
    kind = mimetypes.guess_type(file.name)[0] or 'application/octet-stream' if is_image else 'text/html'
    headers = StatusAndHeaders('200 OK', [('Content-Type', kind)], protocol='HTTP/1.1')
    name = hashlib.sha256(url.encode()).hexdigest()
    uuid = f'<urn:uuid:{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:32]}>'
    fixed = {'WARC-Date': date, 'WARC-Record-ID': uuid}
    payload = io.BytesIO(file.read_bytes())
    writer.write_record(
        writer.create_warc_record(url, 'response', payload=payload, http_headers=headers, warc_headers_dict=fixed)
    )


def _parts(items: Sequence, size: int) -> Iterator[Sequence]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
