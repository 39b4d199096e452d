"""Messages of OpenAI's API -> the prompt that `generate` would be given.

A model that chats (`inputs/prompts.py:dialogue_of`) gets `chat` of the turns. Any other model gets what stands in the
messages, one after the other. What the assistant said is an example's text, which ends a chunk:

    user: [image]      assistant: 'dax'      user: [image]      ->      [image, ' dax<EOC>', image]

One message of the user may as well hold it all: [image, ' dax<EOC>', image].
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.prompts import IMAGE_SUFFIXES, chat, dialogue_of, end_of_answer, join_texts, mere
from flamingo_jax.inputs.tokenizer import QUOTE, Tokenizer
from flamingo_jax.serving.images import Image, Images

Items = list[Any]  # Texts and images in reading order.
ROLES = dict(system='system', developer='system', user='user', assistant='assistant')
ITEMS, FRAMES, MESSAGES, LETTERS = 1024, 256, 1024, 2**20  # Most of a request.


class Message(NamedTuple):
    """What one side said."""

    role: str  # 'system', 'user' or 'assistant'.
    items: Items


def read_messages(given: Any, images: Images) -> list[Message]:
    """The messages of a request, with their images as the model takes them.

    Raises:
      UserError: they are not valid, an image cannot be read, or there are too many.
    """
    if not isinstance(given, list) or not 0 < len(given) <= MESSAGES:
        raise UserError(f'messages must be a list of 1 to {MESSAGES} messages.')
    for message in given:
        if not isinstance(message, dict) or message.get('role') not in ROLES:
            raise UserError(f'A message is {{"role": ..., "content": ...}}. Roles are {", ".join(ROLES)}.')
    _refuse_many([message.get('content') for message in given])
    return [Message(ROLES[one['role']], read_items(one.get('content'), images)) for one in given]


def read_items(content: Any, images: Images) -> Items:
    """The texts and images of a message's content: a text, or a list of parts. Errors as for `read_messages`."""
    _refuse_many([content])
    if isinstance(content, str):
        return [content]
    return [_item(part, images) for part in content]


def _refuse_many(contents: Sequence[Any]) -> None:
    """Refuses too much before any image is decoded."""
    parts = []
    for content in contents:
        if not isinstance(content, str | list):
            raise UserError('The content of a message must be a text, or a list of parts.')
        parts += content if isinstance(content, list) else [content]
    videos = [part.get('video') for part in parts if isinstance(part, dict)]
    shown = sum(isinstance(part, dict) and part.get('type') != 'text' for part in parts)
    frames = shown + sum(len(video) - 1 for video in videos if isinstance(video, list))
    if len(parts) > ITEMS or frames > FRAMES:
        raise UserError(
            f'The request has {len(parts)} parts and {frames} images or frames. Send at most {ITEMS} and {FRAMES}.'
        )
    texts = (part.get('text') if isinstance(part, dict) else part for part in parts)
    if sum(len(text) for text in texts if isinstance(text, str)) > LETTERS:
        raise UserError(f'The texts of the request have more than {LETTERS:,} letters. Send fewer.')


def _item(part: Any, images: Images) -> str | Image:
    """A part of a message."""
    kind = part.get('type') if isinstance(part, dict) else None
    if kind == 'text' and isinstance(part.get('text'), str):
        return part['text']
    if kind == 'video' and isinstance(part.get('video'), list) and part['video']:
        return images.video(part['video'])
    readers: dict[Any, Callable[[Any], Image]] = dict(image_url=images.image, video_url=images.video)
    if kind in readers:
        url = part.get(kind)
        url = url.get('url') if isinstance(url, dict) else url
        if isinstance(url, str):
            return readers[kind](url)
    raise UserError(
        'A part of a message is {"type": "text", "text": ...}, {"type": "image_url", "image_url": {"url": ...}}, '
        '{"type": "video_url", "video_url": {"url": ...}} or {"type": "video", "video": [URL of a frame, ...]}.'
    )


def prompt_of(messages: Sequence[Message], tokenizer: Tokenizer, open_end: bool = True) -> Items:
    """The prompt of a conversation.

    Args:
      open_end: whether it is to be answered, so that the user has the last word. False for examples alone.

    Raises:
      UserError: the messages are in no order that can be answered.
    """
    marks = dialogue_of(tokenizer)
    told = [message for message in messages if message.role == 'system']
    said = _merged(messages[len(told) :], '\n' if marks else '')
    if any(message.role == 'system' for message in said):
        raise UserError('A system message must come before all others.')
    if open_end and (not said or said[-1].role != 'user'):
        raise UserError('The last message must be of the user.')
    if any(not isinstance(item, str) for message in told for item in message.items):
        raise UserError('A system message must be text.')
    system = '\n'.join(item for message in told for item in message.items)
    if marks:
        if said and (said[0].role != 'user' or (not open_end and said[-1].role != 'assistant')):
            raise UserError('A conversation begins with the user. Examples end with what the assistant says.')
        return [_no_file(item) for item in chat(*(one.items for one in said), system=system, marks=marks)]
    items = [system] if system else []
    for message in said:
        items += [answer_of(message.items, tokenizer)] if message.role == 'assistant' else message.items
    return joined(items)


def answer_of(items: Items, tokenizer: Tokenizer) -> str:
    """What the assistant said as the text of a prompt, up to the end of the chunk or turn; so candidates are ranked."""
    if any(not isinstance(item, str) for item in items) or not ''.join(items):
        raise UserError('What the assistant says must be text that is not empty.')
    text = ''.join(items)
    if marks := dialogue_of(tokenizer):
        return marks.says + mere(text) + end_of_answer(marks, tokenizer)
    text = text if text[0].isspace() else f' {text}'
    return text if text.endswith(tokenizer.chunk_end) else text + tokenizer.chunk_end


def joined(items: Items) -> Items:
    """A prompt of a client: neighbouring texts are one text, and no text names a file."""
    return [_no_file(item) for item in join_texts(items)]


def _no_file(item: str | Image) -> str | Image:
    """A text that ends as an image's name ends with an empty quote, too, which has no tokens.

    `encode` looks whether there is such a file, for users who mean the image. A client must not learn that.
    """
    named = isinstance(item, str) and item.lower().endswith(IMAGE_SUFFIXES)
    return f'{item}{QUOTE}{QUOTE}' if named else item


def _merged(messages: Sequence[Message], between: str) -> list[Message]:
    """Neighbouring messages of one side are one; two texts have `between` between them."""
    found: list[Message] = []
    for role, items in messages:
        if not found or found[-1].role != role:
            found.append(Message(role, list(items)))
            continue
        before = found[-1].items
        texts = before and items and isinstance(before[-1], str) and isinstance(items[0], str)
        before += [between] * bool(texts and between) + list(items)
    return [Message(role, joined(items)) for role, items in found]


def examples_of(messages: Sequence[Message], tokenizer: Tokenizer) -> tuple[list[Image], list[str]]:
    """The images in order, and the label of each but the last: what the assistant said of it, or the text after it."""
    by_turns = any(message.role == 'assistant' for message in messages)
    images: list[Image] = []
    labels: list[str] = []
    for role, items in messages:
        for item in items:
            if not isinstance(item, str):
                images.append(item)
            elif len(labels) < len(images) and (role == 'assistant' or not by_turns):
                labels.append(item.removesuffix(tokenizer.chunk_end).strip())
    if len(images) < 2 or len(labels) < len(images) - 1:
        raise UserError('The nearest neighbour needs one image with a label in each example, and an image at the end.')
    return images, labels[: len(images) - 1]
