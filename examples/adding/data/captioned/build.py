"""Lines of JSON, {"file": ..., "caption": ...}, with the images in a folder.

python -m data.captioned.build --source='SET/*.jsonl' --images=SET/images --out=DATA
"""

from data import published

if __name__ == '__main__':
    published.start(__doc__)

from flamingo_jax.building.readers.builder import PublishedBuilder
from flamingo_jax.building.readers.containers import documents, json_lines, opened
from flamingo_jax.building.readers.draft import Draft


def read(path, name, images):
    """A document for each line; what is missing or damaged is dropped, and counted in the ledger."""

    def make(row):
        draft = Draft(row.where)
        draft.image(images.read(row.value['file']), row.value['file'])
        draft.text(row.value['caption'])
        yield from draft.finish()

    with opened(path) as file:
        yield from documents(json_lines(file, name), make)


class Captioned(PublishedBuilder):
    """Images with captions."""

    READERS = {'.jsonl': read}


if __name__ == '__main__':
    published.build(Captioned)
