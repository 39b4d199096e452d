"""ShareGPT4Video: JSON lines, each a clip with captions of its pieces and one of the whole, whose `idx` is -1."""

from collections.abc import Iterator

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, json_lines, opened
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder


def read(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """The pairs of a .jsonl file. Clips are at `video_path`, in the folder `zip_folder` or without it."""

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
