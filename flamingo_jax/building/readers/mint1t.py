"""MINT-1T's PDF and ArXiv parts: a webdataset whose samples are a .json and a .tiff with a page for each picture.

The .json has `texts` and `images` in parallel lists, null where the other has something. Page i of the .tiff is the
i-th picture that is not null.
"""

import io
from collections.abc import Iterator

import PIL.Image

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, parsed, tar_samples
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import Pictures
from flamingo_jax.building.readers.pictures import picture_rule


def read(path: str, name: str, pictures: Pictures) -> Iterator[Document | Dropped]:
    """The documents of a tar. It holds its own pictures: `pictures` is not used."""

    def make(row: Row) -> Iterator[Document | Dropped]:
        about = parsed(row.value['json'], row.where)
        if isinstance(about, Dropped):
            yield about
            return
        fields, pages = about.value, _pages(row.value.get('tiff') or row.value.get('tif') or b'')
        draft = Draft(row.where, str(fields.get('url') or fields.get('pdf_name') or ''))
        if len(fields['images']) != len(fields['texts']):
            raise ValueError(f'{len(fields["images"])} images and {len(fields["texts"])} texts')
        for image, text in zip(fields['images'], fields['texts'], strict=True):
            if image is not None:
                draft.picture(next(pages, None), str(image))
            if text is not None:
                draft.text(text)
        yield from draft.finish()

    yield from documents(tar_samples(path, name), make)


def _pages(tiff: bytes) -> Iterator[bytes | None]:
    """Each page as a picture of its own; b'damaged' for one that cannot be read."""
    if not tiff:
        return
    if picture_rule(tiff):
        yield from iter(lambda: b'damaged', None)
    try:
        image = PIL.Image.open(io.BytesIO(tiff))
        for number in range(image.n_frames):
            image.seek(number)
            page = io.BytesIO()
            image.convert('RGB').save(page, 'PNG')
            yield page.getvalue()
    except Exception:  # PIL's decoder has many errors for damaged data.
        yield from iter(lambda: b'damaged', None)
