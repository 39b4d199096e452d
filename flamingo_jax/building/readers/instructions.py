"""Files of questions and answers: which of the sets each entry is of shows in its keys.

A .json file is a list (LLaVA), or an object (MIMIC-IT). A .jsonl file has a line a document (M3IT, or LLaVA's
conversations, or a chat's messages), a .parquet or .arrow file a row (LLaVA-NeXT, The Cauldron, FineVision).
"""

from collections.abc import Iterator

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers import llava, m3it, messages, mimic_it
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
    """The documents of a file of any of these kinds. chat: as for `ask`."""

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
