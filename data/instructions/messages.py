"""The Cauldron, FineVision and the `messages` of chats: other shapes of conversations, told in LLaVA's.

The Cauldron and FineVision have `images` and `texts`, a list of {'user', 'assistant'} about all of the images. A chat
has `messages` of {'role', 'content'}, where the content is a text, or a list of parts such as {'type': 'text', 'text'},
{'type': 'image'} and {'type': 'image_url', 'image_url': {'url'}}. A part without an image of its own takes the next of
`images`.
"""

from typing import Any

from flamingo_jax.building.readers.containers import Row
from flamingo_jax.building.readers.media_files import decoded
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.tokenizer import IMAGE

SOURCES = ('image', 'image_url', 'url', 'path', 'bytes')  # Fields of a part that may hold its image.


def is_conversation(value: Any) -> bool:
    """Whether an entry has one of these shapes."""
    return isinstance(value, dict) and ('messages' in value or isinstance(value.get('texts'), list))


def as_conversation(row: Row) -> Row:
    """The entry in LLaVA's shape: `image`, a list, and `conversations`.

    Raises:
      KeyError, TypeError, UserError: it has another shape.
    """
    value = row.value
    images = [_image(one) for one in value.get('images') or value.get('image') or []]
    if 'messages' not in value:
        turns = [
            dict(zip(('from', 'value'), turn, strict=True))
            for pair in value['texts']
            for turn in (('human', pair['user']), ('gpt', pair['assistant']))
        ]
        return Row(row.where, dict(image=images, conversations=turns))
    shown: list[Any] = []
    turns = [{'from': one['role'], 'value': _text(one['content'], images, shown)} for one in value['messages']]
    return Row(row.where, dict(image=shown + images, conversations=turns))


def _text(content: Any, left: list, shown: list) -> str:
    """A message's text, with a tag where an image is, which goes from `left` to `shown`."""
    if isinstance(content, str):
        return content
    said = []
    for part in content:
        if part['type'] == 'text':
            said.append(part['text'].replace(IMAGE, f'{IMAGE[0]} {IMAGE[1:]}'))  # It is no tag here.
            continue
        if part['type'] not in ('image', 'image_url'):
            raise UserError(f'a part of a message is of the type {part["type"]}')
        own = next((part[name] for name in SOURCES if part.get(name)), None)
        if own is None and not left:
            raise UserError('a message shows more images than there are')
        shown.append(left.pop(0) if own is None else _image(own))
        said.append(IMAGE)
    return '\n'.join(said)


def _image(image: Any) -> Any:
    """An image as LLaVA's reader takes it: a name, or a dict with its bytes."""
    if isinstance(image, dict) and 'url' in image:
        image = image['url']
    if isinstance(image, str) and image.startswith('data:'):
        return dict(bytes=decoded(image.partition(',')[2]))
    return dict(bytes=image) if isinstance(image, bytes) else image
