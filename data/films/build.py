"""Videos with texts, from webdataset tars, WebVid or ShareGPT4Video.

    python -m data.films.build --source="panda70m/*.tar" --out=DATA --name=panda70m
    python -m data.films.build --source=results_2M_train.csv --images=VIDEOS --out=DATA --name=webvid
    python -m data.films.build --source=sharegpt4video_40k.jsonl --images=VIDEOS --out=DATA --name=sharegpt4video

Videos stay encoded; training decodes frames of them (data set option `frames`). It needs the extra `videos`.
"""

from data import published

if __name__ == '__main__':
    published.start(__doc__)

import csv
from collections.abc import Iterator

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers import webdataset
from flamingo_jax.building.readers.builder import PublishedBuilder
from flamingo_jax.building.readers.containers import Row, documents, json_lines, opened, text_lines
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.building.readers.media_files import require_av


def read_webvid(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """WebVid: a .csv file with the columns videoid, page_dir and name (the caption); clips at page_dir/videoid.mp4."""

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


def read_sharegpt4video(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """ShareGPT4Video: JSON lines, each a clip with captions of its pieces and one of the whole, whose `idx` is -1.

    Clips are at `video_path`, in the folder `zip_folder` or without it.
    """

    def make(row: Row) -> Iterator[Document | Dropped]:
        file, folder = row.value['video_path'], row.value.get('zip_folder') or ''
        whole = [one['content'] for one in row.value['captions'] if str(one['idx']) == '-1']
        draft = Draft(row.where)
        data = image_folder.read(file)
        if data is None:
            data = image_folder.read(f'{folder.removesuffix(".zip")}/{file}')
        draft.video(data, file)
        draft.text(whole[0].strip() if whole else '')
        yield from draft.finish()

    with opened(path) as file:
        yield from documents(json_lines(file, name), make)


class Videos(PublishedBuilder):
    """Videos with texts."""

    READERS = {'.tar': webdataset.read, '.csv': read_webvid, '.jsonl': read_sharegpt4video}

    def __init__(self, **rest):
        """As for `PublishedBuilder`; ImportError if videos cannot be read."""
        require_av()
        super().__init__(**rest)


if __name__ == '__main__':
    published.build(Videos)
