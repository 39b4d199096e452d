"""OpenFlamingo's own tars of MMC4, and of the pages that ChatGPT wrote: a .json a page, with its images inside.

A page of MMC4 has `image_info` with an `image_base64` for each image that could be downloaded. One of ChatGPT has an
`example` with `_!_IMAGE1_!_` in its text, and `image_map`.
"""

import re
from collections.abc import Iterator

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, parsed, tar_members
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.building.readers.media_files import decoded
from flamingo_jax.building.readers.mmc4 import page

PLACE = re.compile('(_!_IMAGE[0-9]+_!_)')


def read(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """The documents of a tar. It holds its own images: `image_folder` is not used."""

    def make(member: Row) -> Iterator[Document | Dropped]:
        file, data = member.value
        if not file.endswith('.json'):
            return
        row = parsed(data, member.where)
        if isinstance(row, Dropped):
            yield row
        elif row.value.get('is_gpt'):
            draft = Draft(row.where)
            for part in PLACE.split(row.value['example']):
                if PLACE.fullmatch(part):
                    image = row.value['image_map'].get(part) or {}
                    draft.image(decoded(image.get('base64_image')), part)
                else:
                    draft.text(part.strip(), after_text=' ')
            yield from draft.finish()
        else:
            yield from page(row, [decoded(info.get('image_base64')) for info in row.value['image_info']])

    yield from documents(tar_members(path, name), make)
