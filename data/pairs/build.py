"""Images with texts, from webdataset tars, CC3M, CC12M, LAION, COYO, DataComp or COCO.

    python -m data.pairs.build --source="cc12m/*.tar" --out=DATA --name=cc12m
    python -m data.pairs.build --source=Train_GCC-training.tsv --images=IMAGES --out=DATA --name=cc3m
    python -m data.pairs.build --source="laion/*.parquet" --images=IMAGES --out=DATA --name=laion
    python -m data.pairs.build --source=captions_train2014.json --images=train2014 --out=DATA --name=coco

Tars (of img2dataset) hold their images. For lists of URLs, IMAGES is what img2dataset stored, as tars or files.
"""

from data import published

if __name__ == '__main__':
    published.start(__doc__)

from collections.abc import Iterator
from typing import Any

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers import webdataset
from flamingo_jax.building.readers.builder import PublishedBuilder
from flamingo_jax.building.readers.containers import Row, documents, json_file, table_rows, text_lines
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.errors import UserError

# Names of the columns; the first that is there counts. img2dataset can store the images in a column.
URLS, TEXTS, IMAGES = ('url', 'URL', 'image_url'), ('text', 'TEXT', 'caption'), ('jpg', 'png', 'webp')


def read_tsv(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """CC3M and CC12M: a .tsv file without a header, of caption and URL (CC3M), or URL and caption (CC12M)."""

    def make(row: Row) -> Iterator[Document | Dropped]:
        first, _, second = row.value.rstrip('\r\n').partition('\t')
        if second.startswith(('http://', 'https://')):
            yield from _pair(row, second, first, image_folder)
        elif first.startswith(('http://', 'https://')):
            yield from _pair(row, first, second, image_folder)
        else:
            raise UserError('neither of its two columns is a URL')

    yield from documents(text_lines(path, name), make)


def read_parquet(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """LAION, COYO and DataComp: a Parquet file of URLs and captions."""

    def make(row: Row) -> Iterator[Document | Dropped]:
        url, text = (next((key for key in keys if key in row.value), keys[0]) for keys in (URLS, TEXTS))
        stored = next((row.value[key] for key in IMAGES if key in row.value), None)
        yield from _pair(row, row.value.get(url), row.value[text] or '', image_folder=image_folder, stored=stored)

    yield from documents(table_rows(path, name, URLS + TEXTS + IMAGES), make)


def _pair(
    row: Row, url: Any, text: Any, image_folder: ImageFolder, stored: bytes | None = None
) -> Iterator[Document | Dropped]:
    draft = Draft(row.where, str(url or ''))
    draft.image(image_folder.read(url) if stored is None else stored, url)
    draft.text(text.strip())
    yield from draft.finish()


def read_coco(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """COCO's captions_*.json: `images` with a file name, `annotations` with a caption each, which is a document.

    `image_folder` is the folder that holds the files, or one above it.
    """
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


class Pairs(PublishedBuilder):
    """Images with texts."""

    READERS = {
        '.tar': webdataset.read,
        '.tsv': read_tsv,
        '.parquet': read_parquet,
        '.json': read_coco,
    }


if __name__ == '__main__':
    published.build(Pairs)
