"""M3IT: JSON lines with `instruction`, `inputs`, `outputs`, and the images in base64 inside."""

from collections.abc import Iterator

from data.instructions.questions import ask
from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.building.readers.media_files import decoded

KEYS = ('image_base64_str', 'image_str', 'img_str', 'image')  # Of the images; the first that is there counts.


def document(row: Row, image_folder: ImageFolder, chat: bool = False) -> Iterator[Document | Dropped]:
    """The document of a line. It holds its own images: `image_folder` is not used. chat: as for `ask`."""
    draft = Draft(row.where)
    images = next((row.value[key] for key in KEYS if key in row.value), [])
    found = [decoded(image) for image in (images if isinstance(images, list) else [images])]
    shown = [data for data in found if draft.can_show(data)]
    question = ' '.join(filter(None, (row.value['instruction'].strip(), (row.value.get('inputs') or '').strip())))
    ask(draft, [*shown, question], row.value['outputs'], chat)
    yield from draft.finish()
