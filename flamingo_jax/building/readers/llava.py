"""LLaVA-Instruct-150K, the mix of LLaVA-1.5 and the data of LLaVA-NeXT: conversations about a picture, or about none.

The human's first turn holds `<image>` and a line break, before the question or after it. Here the picture comes first.
`image` is a path such as 'coco/train2017/000000033471.jpg' (the mix) or only the file's name (150K). ShareGPT4Video's
conversations have a `video` instead.
"""

import os
from collections.abc import Iterator
from typing import Any

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import Pictures
from flamingo_jax.building.readers.pictures import PICTURES
from flamingo_jax.building.readers.questions import ask
from flamingo_jax.inputs.tokenizer import IMAGE

TAGS = (IMAGE, '<video>')
ROLES = {'human': 'human', 'user': 'human', 'gpt': 'gpt', 'assistant': 'gpt'}


def document(row: Row, pictures: Pictures) -> Iterator[Document | Dropped]:
    """The document of a conversation; if a picture is missing, only what was dropped."""
    draft = Draft(row.where)
    images, films = (_listed(row.value.get(key)) for key in ('image', 'video'))
    shown = [draft.picture(*_found(image, pictures)) for image in images]
    shown += [draft.film(pictures.read(film), film) for film in films]
    turns = [(ROLES[turn['from']], turn['value']) for turn in row.value['conversations'] if turn['from'] != 'system']
    tags = sum(text.count(tag) for role, text in turns for tag in TAGS if role == 'human')
    if tags > len(shown):
        raise ValueError(f'{tags} tags for {len(shown)} pictures')
    if not all(shown):
        yield from draft.give_up('document_without_picture', turns[0][1])
        return
    for (asker, question), (answerer, answer) in zip(turns[::2], turns[1::2], strict=False):
        if (asker, answerer) != ('human', 'gpt'):
            raise ValueError('turns do not alternate between human and gpt')
        for tag in TAGS:
            question = question.replace(tag, '')
        ask(draft, question, answer)
    yield from draft.finish(alone=not shown)


def _listed(value: Any) -> list:
    return [] if value is None else value if isinstance(value, list) else [value]


def _found(image: Any, pictures: Pictures) -> tuple[bytes | None, str]:
    """A picture and its name. Its ending does not count: those of OCR-VQA were saved as .jpg, .png or .gif."""
    if isinstance(image, dict):  # LLaVA-NeXT's files hold the pictures.
        return image.get('bytes'), str(image.get('path') or '')
    data, (stem, _) = pictures.read(image), os.path.splitext(image)
    others = (pictures.read(stem + ending) for ending in PICTURES)
    return (data if data is not None else next((other for other in others if other is not None), None)), image
