"""LLaVA-Instruct-150K and LLaVA-1.5's mix: a .json list of conversations about a picture, or about none.

The human's first turn holds `<image>` and a line break, before the question or after it. Here the picture comes first.
`image` is a path such as 'coco/train2017/000000033471.jpg' (the mix) or only the file's name (150K). ShareGPT4Video's
conversations have a `video` instead.
"""

import os
from collections.abc import Iterator

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, json_items
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import Pictures
from flamingo_jax.building.readers.pictures import PICTURES
from flamingo_jax.building.readers.questions import ask
from flamingo_jax.inputs.tokenizer import IMAGE

TAGS = (IMAGE, '<video>')
ROLES = {'human': 'human', 'user': 'human', 'gpt': 'gpt', 'assistant': 'gpt'}


def read(path: str, name: str, pictures: Pictures) -> Iterator[Document | Dropped]:
    """The documents of a .json file. A conversation whose picture is missing is dropped."""

    def make(row: Row) -> Iterator[Document | Dropped]:
        draft = Draft(row.where)
        names = [row.value.get(key) for key in ('image', 'video')]
        images, films = ([] if one is None else one if isinstance(one, list) else [one] for one in names)
        shown = [draft.picture(_read(pictures, one), one) for one in images]
        shown += [draft.film(pictures.read(one), one) for one in films]
        turns = [
            (ROLES[turn['from']], turn['value']) for turn in row.value['conversations'] if turn['from'] != 'system'
        ]
        tags = sum(text.count(tag) for role, text in turns for tag in TAGS if role == 'human')
        if tags > len(shown):
            raise ValueError(f'{tags} tags for {len(shown)} pictures')
        if not all(shown):
            yield from draft.give_up('document_without_picture', turns[0][1])
            return
        begins = True
        for (asker, question), (answerer, answer) in zip(turns[::2], turns[1::2], strict=False):
            if (asker, answerer) != ('human', 'gpt'):
                raise ValueError('turns do not alternate between human and gpt')
            for tag in TAGS:
                question = question.replace(tag, '')
            begins = not ask(draft, question, answer, begins) and begins
        yield from draft.finish(alone=not shown)

    yield from documents(json_items(path, name), make)


def _read(pictures: Pictures, name: str) -> bytes | None:
    """A picture, whatever its ending: those of OCR-VQA were saved as .jpg, .png or .gif, and are listed as .jpg."""
    data = pictures.read(name)
    stem, _ = os.path.splitext(name)
    return data if data is not None else next(filter(None, (pictures.read(stem + ending) for ending in PICTURES)), None)
