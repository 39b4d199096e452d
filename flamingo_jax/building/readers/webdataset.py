"""Pairs and videos in webdataset tars, as img2dataset and video2dataset write them: an image or clip, .txt, .json.

The text is that of the .txt, or if there is none, the `caption` or `text` of the .json. The .parquet beside a tar
lists every sample, with those that could not be downloaded.
"""

import os
from collections.abc import Iterator

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, parquet_rows, parsed, tar_samples
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.building.readers.media_files import IMAGES, VIDEOS

ENDINGS_OF_VIDEOS = tuple(ending[1:] for ending in VIDEOS)
ENDINGS = (*ENDINGS_OF_VIDEOS, *(ending[1:] for ending in IMAGES))


def read(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """The pairs of a tar. It holds its own images: `image_folder` is not used."""

    def make(row: Row) -> Iterator[Document | Dropped]:
        sample, about = row.value, {}
        if 'json' in sample:
            about = parsed(sample['json'], row.where)
            if isinstance(about, Dropped):
                yield about
                about = {}
            else:
                about = about.value if isinstance(about.value, dict) else {}
        written = next((sample[key] for key in ('txt', 'text', 'caption') if key in sample), b'')
        text = written.decode(errors='replace').strip() or about.get('caption') or about.get('text') or ''
        url = str(about.get('url') or '')
        draft = Draft(row.where, url)
        shown = [key for key in sample if key.endswith(ENDINGS)]
        if not shown:
            draft.drop('image_missing', 'image', url)
        for key in shown:
            (draft.video if key.endswith(ENDINGS_OF_VIDEOS) else draft.image)(sample[key], url)
        draft.text(text)
        yield from draft.finish()

    listed = os.path.splitext(path)[0] + '.parquet'
    if os.path.isfile(listed):
        for row in parquet_rows(listed, f'{os.path.splitext(name)[0]}.parquet', ('url', 'status', 'error_message')):
            if isinstance(row, Dropped):
                yield row
            elif row.value.get('status') not in (None, 'success'):
                yield Dropped('image_not_downloaded', 'image', row.where, excerpt=str(row.value.get('url')))
    yield from documents(tar_samples(path, name), make)
