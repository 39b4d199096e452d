"""COCO's captions_*.json: `images` with a file name, `annotations` with a caption each. A caption is a document."""

from collections.abc import Iterator

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, json_file
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder


def read(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """The pairs of a file, one at a time. `image_folder` is the folder that holds the files, or one above it."""
    file = json_file(path, name)
    if isinstance(file, Dropped):
        yield file
        return
    lists = file.value if isinstance(file.value, dict) else {}
    images, annotations = lists.get('images'), lists.get('annotations')
    if not (isinstance(images, list) and isinstance(annotations, list)):
        yield Dropped('json_damaged', 'file', name, excerpt='it has no lists `images` and `annotations`')
        return
    files = {str(image['id']): image for image in images if isinstance(image, dict) and 'id' in image}

    def pair(row: Row) -> Iterator[Document | Dropped]:
        image = files[str(row.value['image_id'])]
        draft = Draft(row.where, str(image.get('coco_url') or ''))
        draft.image(image_folder.read(image['file_name']), str(image['file_name']))
        draft.text(row.value['caption'].strip())
        yield from draft.finish()

    yield from documents((Row(f'{name}#{number}', one) for number, one in enumerate(annotations)), pair)
