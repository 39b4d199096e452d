"""LLaVA-Instruct-150K, the mix of LLaVA-1.5 and the data of LLaVA-NeXT: conversations about an image, or about none.

The human's first turn holds `<image>` and a line break, before the question or after it. Here the image comes first.
Where tags stand elsewhere, or several, each image has the place of its tag, since a text sees the image before it.
If there are fewer tags than images, all images come first.

`image` is a path such as 'coco/train2017/000000033471.jpg' (the mix) or only the file's name (150K). ShareGPT4Video's
conversations have a `video` instead.
"""

import os
import re
from collections.abc import Iterator
from typing import Any

from data.instructions.questions import ask, tell
from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.building.readers.media_files import IMAGES
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.tokenizer import IMAGE

VIDEO = '<video>'
TAG = re.compile(f'({IMAGE}|{VIDEO})')
ROLES = {'human': 'human', 'user': 'human', 'gpt': 'gpt', 'assistant': 'gpt'}


def document(row: Row, image_folder: ImageFolder, chat: bool = False) -> Iterator[Document | Dropped]:
    """The document of a conversation; if an image is missing, only what was dropped. chat: as for `ask`."""
    draft, said = Draft(row.where), row.value['conversations']
    images = [_found(image, image_folder) for image in _listed(row.value.get('image'))]
    videos = [(image_folder.read(video), video) for video in _listed(row.value.get('video'))]
    turns = [(ROLES[turn['from']], turn['value']) for turn in said if turn['from'] != 'system']
    tags, number = sum(len(TAG.findall(text)) for role, text in turns if role == 'human'), len(images) + len(videos)
    if tags > number:
        raise UserError(f'{tags} tags for {number} images')
    can_show = [draft.can_show(*image) for image in images] + [draft.can_show(*video, video=True) for video in videos]
    if not all(can_show):
        yield from draft.give_up('document_without_image', turns[0][1])
        return
    for told in said:
        if told['from'] == 'system':
            tell(draft, told['value'], chat)
    left = {IMAGE: [data for data, _ in images], VIDEO: [data for data, _ in videos]}
    first = []
    if tags < number:
        first, left = left[IMAGE] + left[VIDEO], {IMAGE: [], VIDEO: []}
    for turn, ((asker, question), (answerer, answer)) in enumerate(zip(turns[::2], turns[1::2], strict=False)):
        if (asker, answerer) != ('human', 'gpt'):
            raise UserError('turns do not alternate between human and gpt')
        asked = _in_order(question, left)
        if not turn:
            at_end = len(asked) == 2 and isinstance(asked[1], bytes)
            asked = first + (asked[::-1] if at_end else asked)
        ask(draft, asked, answer, chat)
    if len(turns) % 2:
        draft.drop('question_without_answer', 'text', turns[-1][1])
    yield from draft.finish(alone=not number)


def _in_order(text: str, left: dict[str, list[bytes]]) -> list[str | bytes]:
    """A turn as texts and images in reading order. Each tag takes one of the images that are left."""
    parts: list[str | bytes] = []
    for part in TAG.split(text):
        if part in left:
            those = left[part] or left[VIDEO if part == IMAGE else IMAGE]
            parts += [those.pop(0)] if those else []
        elif part.strip():
            parts.append(part)
    return parts


def _listed(value: Any) -> list:
    return [] if value is None else value if isinstance(value, list) else [value]


def _found(image: Any, image_folder: ImageFolder) -> tuple[bytes | None, str]:
    """An image and its name. Its ending does not count: those of OCR-VQA were saved as .jpg, .png or .gif."""
    if isinstance(image, dict):  # LLaVA-NeXT's files hold the images.
        return image.get('bytes'), str(image.get('path') or '')
    data, (stem, _) = image_folder.read(image), os.path.splitext(image)
    others = (image_folder.read(stem + ending) for ending in IMAGES)
    return (data if data is not None else next((other for other in others if other is not None), None)), image
