"""Questions and answers about images, from LLaVA-Instruct-150K, the mix of LLaVA-1.5, The Cauldron, FineVision,
MIMIC-IT or M3IT, or from chats with `messages`.

    python -m data.instructions.build --source=llava_v1_5_mix665k.json --images=IMAGES --out=DATA --name=llava
    python -m data.instructions.build --source=LA_instructions.json --images=images.parquet --out=DATA --name=mimic_it
    python -m data.instructions.build --source="FineVision/*.parquet" --out=DATA --name=finevision
    python -m data.instructions.build --source="SAVED/**/*.arrow" --out=DATA --name=cauldron
    python -m data.instructions.build --source="m3it/**/*.jsonl" --out=DATA --name=m3it

IMAGES has the folders that the mix names: coco/ gqa/ ocr_vqa/ textvqa/ vg/. Questions have the loss weight 0, answers
1. The mix holds training questions of VQAv2, OK-VQA and TextVQA: a model trained on them has seen these tasks.

--chat marks the turns as in ChatML, in which SmolLM2 and Qwen were trained. Train with `chat=True` in the config's data
set, and ask with `generate --chat`.
"""

from absl import flags

from data import published

if __name__ == '__main__':
    flags.DEFINE_bool('chat', False, 'Mark the turns as in ChatML, for a language model that chats.')
    published.start(__doc__)

import functools
from collections.abc import Iterator

from data.instructions import llava, m3it, messages, mimic_it
from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.builder import PublishedBuilder
from flamingo_jax.building.readers.containers import (
    Row,
    documents,
    extension,
    json_items,
    json_lines,
    opened,
    table_rows,
)
from flamingo_jax.building.readers.folder import ImageFolder


def read(path: str, name: str, image_folder: ImageFolder, chat: bool = False) -> Iterator[Document | Dropped]:
    """The documents of a file. Which of the sets an entry is of shows in its keys. chat: as for `ask`.

    A .json file is a list (LLaVA), or an object (MIMIC-IT). A .jsonl file has a line a document (M3IT, or LLaVA's
    conversations, or a chat's messages), a .parquet or .arrow file a row (LLaVA-NeXT, The Cauldron, FineVision).
    """

    def make(row: Row) -> Iterator[Document | Dropped]:
        if messages.is_conversation(row.value):
            row = messages.as_conversation(row)
        yield from (llava if 'conversations' in row.value else m3it).document(row, image_folder, chat)

    if extension(path) in ('.parquet', '.arrow'):
        yield from documents(table_rows(path, name), make)
        return
    with opened(path) as file:
        if extension(path) == '.jsonl':
            yield from documents(json_lines(file, name), make)
            return
        try:
            is_list = file.read(1000).lstrip(b'\xef\xbb\xbf \t\r\n').startswith(b'[')
        except Exception:  # Damage, which the reader of the list names.
            is_list = True
    if is_list:
        yield from documents(json_items(path, name), make)
    else:
        yield from mimic_it.read(path, name, image_folder, chat)


class Instructions(PublishedBuilder):
    """Questions and answers about images."""

    def __init__(self, chat: bool = False, **rest):
        """chat: the turns are marked as in ChatML. The rest is as for `PublishedBuilder`."""
        reader = functools.partial(read, chat=chat)
        self.READERS = dict.fromkeys(('.json', '.jsonl', '.parquet', '.arrow'), reader)
        super().__init__(**rest)


if __name__ == '__main__':
    published.build(Instructions, chat=flags.FLAGS.chat)
