"""MINT-1T's PDF and ArXiv parts: a webdataset whose samples are a .json and a .tiff with a page for each image.

The .json has `texts` and `images` in parallel lists, null where the other has something. Page i of the .tiff is the
i-th image that is not null.
"""

import io
import warnings
from collections.abc import Iterator

import PIL.Image

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, parsed, tar_samples
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.building.readers.media_files import READABLE
from flamingo_jax.errors import UserError


def read(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """The documents of a tar. It holds its own images: `image_folder` is not used."""

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
