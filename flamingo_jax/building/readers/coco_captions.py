"""COCO's captions_*.json: `images` with a file name, `annotations` with a caption each. A caption is a document."""

from collections.abc import Iterator

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, json_file
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import Pictures


def read(path: str, name: str, pictures: Pictures) -> Iterator[Document | Dropped]:
    """The pairs of a file. `pictures` is the folder that holds the files, or one above it."""

    def make(row: Row) -> Iterator[Document | Dropped]:
        files = {image['id']: image for image in row.value['images']}

        def pair(one: Row) -> Iterator[Document | Dropped]:
            image = files[one.value['image_id']]
            draft = Draft(one.where, str(image.get('coco_url') or ''))
            draft.picture(pictures.read(image['file_name']), str(image['file_name']))
            draft.text(one.value['caption'].strip())
            yield from draft.finish()

        captions = (Row(f'{row.where}#{number}', one) for number, one in enumerate(row.value['annotations']))
        yield from documents(captions, pair)

    yield from documents([json_file(path, name)], make)
