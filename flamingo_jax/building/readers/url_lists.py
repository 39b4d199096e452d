"""Lists of URLs and captions: CC3M and CC12M (.tsv), LAION, COYO and DataComp (.parquet)."""

from collections.abc import Iterator
from typing import Any

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, table_rows, text_lines
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.errors import UserError

# Names of the columns; the first that is there counts. img2dataset can store the images in a column.
URLS, TEXTS, IMAGES = ('url', 'URL', 'image_url'), ('text', 'TEXT', 'caption'), ('jpg', 'png', 'webp')


def read_tsv(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """The pairs of a .tsv file without a header: caption and URL (CC3M), or URL and caption (CC12M)."""

    def make(row: Row) -> Iterator[Document | Dropped]:
        first, _, second = row.value.rstrip('\r\n').partition('\t')
        if second.startswith(('http://', 'https://')):
            yield from _pair(row, second, first, image_folder)
        elif first.startswith(('http://', 'https://')):
            yield from _pair(row, first, second, image_folder)
        else:
            raise UserError('neither of its two columns is a URL')

    yield from documents(text_lines(path, name), make)


def read_parquet(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """The pairs of a Parquet file."""

    def make(row: Row) -> Iterator[Document | Dropped]:
        url, text = (next((key for key in keys if key in row.value), keys[0]) for keys in (URLS, TEXTS))
        stored = next((row.value[key] for key in IMAGES if key in row.value), None)
        yield from _pair(row, row.value.get(url), row.value[text] or '', image_folder=image_folder, stored=stored)

    yield from documents(table_rows(path, name, URLS + TEXTS + IMAGES), make)


def _pair(
    row: Row, url: Any, text: Any, image_folder: ImageFolder, stored: bytes | None = None
) -> Iterator[Document | Dropped]:
    draft = Draft(row.where, str(url or ''))
    draft.image(image_folder.read(url) if stored is None else stored, url)
    draft.text(text.strip())
    yield from draft.finish()
