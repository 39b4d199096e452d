"""WebVid: a .csv file of captions, and the clips at page_dir/videoid.mp4 in a folder."""

import csv
from collections.abc import Iterator

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, text_lines
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder


def read(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """The pairs of a .csv file with the columns videoid, page_dir and name (the caption)."""

    def make(row: Row) -> Iterator[Document | Dropped]:
        file = f'{row.value["videoid"]}.mp4'
        draft = Draft(row.where, str(row.value.get('contentUrl') or ''))
        data = image_folder.read(f'{row.value["page_dir"]}/{file}')
        draft.video(image_folder.read(file) if data is None else data, file)
        draft.text(row.value['name'].strip())
        yield from draft.finish()

    yield from documents(_rows(path, name), make)


def _rows(path: str, name: str) -> Iterator[Row | Dropped]:
    damage: list[Dropped] = []

    def lines() -> Iterator[str]:
        for line in text_lines(path, name):
            if isinstance(line, Dropped):
                damage.append(line)
            else:
                yield line.value.replace('\0', '')

    rows, number = csv.DictReader(lines()), 0
    while True:
        number += 1
        try:
            yield Row(f'{name}#{number}', next(rows))
        except StopIteration:
            break
        except csv.Error as error:  # A field that is too long.
            yield Dropped('line_damaged', 'document', f'{name}#{number}', excerpt=str(error))
    yield from damage
