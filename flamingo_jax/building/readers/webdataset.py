"""Pairs and films in webdataset tars, as img2dataset and video2dataset write them: a picture or clip, .txt, .json.

The text is that of the .txt, or if there is none, the `caption` or `text` of the .json. The .parquet beside a tar
lists every sample, with those that could not be downloaded.
"""

import os
from collections.abc import Iterator

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, parquet_rows, parsed, tar_samples
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import Pictures
from flamingo_jax.building.readers.pictures import FILMS, PICTURES

ENDINGS_OF_FILMS = tuple(ending[1:] for ending in FILMS)
ENDINGS = (*ENDINGS_OF_FILMS, *(ending[1:] for ending in PICTURES))


def read(path: str, name: str, pictures: Pictures) -> Iterator[Document | Dropped]:
    """The pairs of a tar. It holds its own pictures: `pictures` is not used."""

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
            draft.drop('picture_missing', 'picture', url)
        for key in shown:
            (draft.film if key.endswith(ENDINGS_OF_FILMS) else draft.picture)(sample[key], url)
        draft.text(text)
        yield from draft.finish()

    listed = os.path.splitext(path)[0] + '.parquet'
    if os.path.isfile(listed):
        for row in parquet_rows(listed, f'{os.path.splitext(name)[0]}.parquet', ('url', 'status', 'error_message')):
            if isinstance(row, Dropped):
                yield row
            elif row.value.get('status') not in (None, 'success'):
                yield Dropped('picture_not_downloaded', 'picture', row.where, excerpt=str(row.value.get('url')))
    yield from documents(tar_samples(path, name), make)
