"""Interleaved pages from OBELICS, OmniCorpus or MINT-1T.

    python -m data.obelics.build --source="OBELICS/*.parquet" --images=IMAGES --out=DATA
    python -m data.obelics.build --source="MINT-1T-PDF/*.tar" --out=DATA --name=mint1t

IMAGES is what img2dataset made of the URLs: its tars, or its files. MINT-1T's PDF and ArXiv tars hold their own.
"""

from data import published

if __name__ == '__main__':
    published.start(__doc__)

import io
import json
import warnings
from collections.abc import Iterator
from typing import Any

import PIL.Image

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.builder import PublishedBuilder
from flamingo_jax.building.readers.containers import Row, documents, parsed, table_rows, tar_samples
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.building.readers.media_files import READABLE
from flamingo_jax.errors import UserError

COLUMNS = ('images', 'texts', 'general_metadata', 'url')
# OBELICS has this text where a page had a link "read more": what follows belongs to another article.
END = 'END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED'


def read_table(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """OBELICS, OmniCorpus and MINT-1T's HTML: a Parquet file with texts and URLs of images in parallel lists.

    `images` and `texts` have the same length, and one of the two is null at each place. OBELICS has `metadata` and
    `general_metadata` as JSON, OmniCorpus as structs, MINT-1T in columns of its own; only the page's URL is read.
    Images that are missing leave the text where it is.
    """

    def make(row: Row) -> Iterator[Document | Dropped]:
        images, texts = row.value['images'], row.value['texts']
        if len(images) != len(texts):
            raise UserError(f'{len(images)} images and {len(texts)} texts')
        url = _url(row.value)
        for number, parts in enumerate(_split(images, texts)):
            draft = Draft(f'{row.where}.{number}' if number else row.where, url)
            for image, text in parts:
                if image and text:
                    draft.drop('place_with_text_and_image', 'image')
                if text:
                    draft.text(text, after_text='\n\n')  # As OBELICS joins neighbouring texts.
                elif image:
                    draft.image(*_found(image, image_folder))
            yield from draft.finish()

    yield from documents(table_rows(path, name, COLUMNS), make)


def _split(images: list[str | None], texts: list[str | None]) -> Iterator[list[tuple[str | None, str | None]]]:
    """The parts of each document: of one, unless END is between."""
    parts: list[tuple[str | None, str | None]] = []
    for image, text in zip(images, texts, strict=True):
        before, *others = text.split(END) if text else [text]
        parts.append((image, before))
        for other in others:
            if parts:
                yield parts
            parts = [(None, other.lstrip())]
    if any(image or (text and text.strip()) for image, text in parts):
        yield parts


def _found(image: Any, image_folder: ImageFolder) -> tuple[bytes | None, str]:
    """An image and its name, of its URL, or of a copy of the set that holds the images themselves."""
    if isinstance(image, dict):
        return image.get('bytes'), str(image.get('path') or '')
    return (image, '') if isinstance(image, bytes) else (image_folder.read(image), image)


def _url(row: dict[str, Any]) -> str:
    about = row.get('general_metadata') or {}
    if isinstance(about, str):
        about = json.loads(about)
    return str(about.get('url') or row.get('url') or '')


def read_tar(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """MINT-1T's PDF and ArXiv parts: a tar whose samples are a .json and a .tiff with a page for each image.

    The .json has `texts` and `images` in parallel lists, null where the other has something. Page i of the .tiff is the
    i-th image that is not null. `image_folder` is not used.
    """

    def make(row: Row) -> Iterator[Document | Dropped]:
        about = parsed(row.value['json'], row.where)
        if isinstance(about, Dropped):
            yield about
            return
        fields, tiff, number = about.value, row.value.get('tiff') or row.value.get('tif'), 0
        draft = Draft(row.where, str(fields.get('url') or fields.get('pdf_name') or ''))
        if len(fields['images']) != len(fields['texts']):
            raise UserError(f'{len(fields["images"])} images and {len(fields["texts"])} texts')
        for image, text in zip(fields['images'], fields['texts'], strict=True):
            if image is not None:
                draft.image(_page(tiff, number) if tiff else None, image)
                number += 1
            if text is not None:
                draft.text(text, after_text='\n\n')
        yield from draft.finish()

    yield from documents(tar_samples(path, name), make)


def _page(tiff: bytes, number: int) -> bytes | None:
    """A page as an image of its own; None if there are fewer pages, b'damaged' if it cannot be read."""
    page = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # PIL's, of damaged data.
            image = PIL.Image.open(io.BytesIO(tiff), formats=['TIFF'])
            image.seek(number)
            if image.size[0] * image.size[1] > READABLE.image_max_pixels:
                return b'damaged'
            image.convert('RGB').save(page, 'PNG')
    except EOFError:
        return None
    except Exception:  # PIL's decoder has many errors for damaged data.
        return b'damaged'
    return page.getvalue()


class Obelics(PublishedBuilder):
    """Interleaved pages of OBELICS, OmniCorpus or MINT-1T."""

    READERS = {'.parquet': read_table, '.arrow': read_table, '.tar': read_tar}


if __name__ == '__main__':
    published.build(Obelics)
