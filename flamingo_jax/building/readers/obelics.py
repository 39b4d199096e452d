"""OBELICS, OmniCorpus and MINT-1T's HTML: Parquet with texts and URLs of images in parallel lists.

`images` and `texts` have the same length, and one of the two is null at each place. OBELICS has `metadata` and
`general_metadata` as JSON, OmniCorpus as structs, MINT-1T in columns of its own; only the page's URL is read.
"""

import json
from collections.abc import Iterator
from typing import Any

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, table_rows
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.errors import UserError

COLUMNS = ('images', 'texts', 'general_metadata', 'url')
# OBELICS has this text where a page had a link "read more": what follows belongs to another article.
END = 'END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED'


def read(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """The documents of a Parquet file. Images that are missing leave the text where it is."""

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
