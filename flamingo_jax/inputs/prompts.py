"""A prompt as a user writes it, strings and pictures in reading order -> tokens and pictures.

    [picture, ' dog<EOC>', picture, ' cat<EOC>', picture]

A string is text; '<EOC>' in it ends a chunk, except in a data set's own text (`Tokenizer.literal`) and in a dialogue
(`chat`). Do not write the tag <image>: put the picture there. A picture is a PIL image, an array, a pathlib.Path,
encoded bytes, a list of those (the frames of a video), or an array [t s d_v] of features that were computed before.
"""

import hashlib
import itertools
import os
import pathlib
import re
import unicodedata
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import PLACES, Frames, PictureFormat, Unread, tiles, to_frames
from flamingo_jax.inputs.layout import Layout
from flamingo_jax.inputs.tokenizer import ENDS_OF_CHUNK, IMAGE, QUOTE, QUOTED, Tokenizer

PICTURE = Image.Image | np.ndarray | pathlib.Path | bytes | Unread
Prompt = Sequence[Any] | PICTURE
UTTERANCE_END = ENDS_OF_CHUNK[-1]
ORIENTATION = 0x0112  # In EXIF.
# The marks of ChatML.
TELLS, ASKS, ENDS_TURN = '<|im_start|>system\n', '<|im_start|>user\n', '<|im_end|>'
ANSWERS = f'{ENDS_TURN}\n<|im_start|>assistant\n'
PICTURE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.gif', '.bmp', '.tif', '.tiff')


def chat(*turns: Prompt | str, system: str = '') -> list[Any]:
    """The prompt of a dialogue, marked as ChatML: so SmolLM2 and Qwen chat.

        chat([picture, ' What is it like?'])
        chat([picture, ' What is it like?'], 'It is a spider.', 'Write a poem about it.')

    What is said is mere text: `<|im_end|>`, '<EOC>' or <image> in it is read as its characters, so that nobody can
    write the other's turn. Several pictures of a turn have no labels, and its text may see the last one alone: where a
    question tells them apart, write ` first` and ` second` after them, as `few_shot/which.py` does in training.

    Args:
      turns: what is asked, the answer to it, what is asked next, and so on. Each is a text, or texts and pictures.
      system: what the model is told before the dialogue; '' for nothing.

    Of a model whose tokenizer has no such marks (`chats`), they are mere text.
    """
    prompt: list[Any] = []
    told = f'{TELLS}{mere(system)}{ENDS_TURN}\n' if system else ''
    for i, turn in enumerate(turns):
        begin, end = ('', ENDS_TURN) if i % 2 else (('\n' if i else told) + ASKS, ANSWERS)
        said = [mere(item) if isinstance(item, str) else item for item in items(turn)]
        for is_text, group in itertools.groupby([begin, *said, end], lambda item: isinstance(item, str)):
            parts = list(group)
            prompt += [''.join(parts)] if is_text else parts
    return prompt


def mere(text: str) -> str:
    """A text in which nothing is a mark or a tag, whatever the tokenizer. All of them begin with '<'.

    With a tokenizer at hand, `Tokenizer.literal` quotes only a text with its own marks.
    """
    return QUOTE + text.replace(QUOTE, '') + QUOTE if '<' in text or QUOTE in text else text


def in_tiles(picture: Image.Image, side: int = 2) -> list[Any]:
    """A picture as its tiles, each with its place, and then as a whole (as in LLaVA 1.6, Liu et al. 2024).

        [*in_tiles(PIL.Image.open('desk.jpg')), ' Question: where is the cup? Answer:']
        [*in_tiles(PIL.Image.open('desk.jpg'), 3), ' Question: how many: cup? Answer:']

    Args:
      picture: of any size.
      side: 2 for quarters, 3 for ninths; ValueError for another number.

    So the bridge of `experiments/smollm_pictures.py` was asked where things are, and of nine tiles how many.
    """
    if side not in PLACES:
        raise UserError(f'Tiles have names in 2 rows of 2 and in 3 of 3, and not in {side} of {side}.')
    whole, *parts = tiles(picture, side)
    prompt: list[Any] = []
    for part, place in zip(parts, PLACES[side], strict=True):
        prompt += [part, f' {place}']
    return [*prompt, whole]


def chats(tokenizer: Tokenizer) -> bool:
    """Whether a language model's tokenizer has the marks of ChatML, so that `chat` asks as the model was trained."""
    return all(len(tokenizer.encode(mark, continues=True)) == 1 for mark in ('<|im_start|>', ENDS_TURN))


def is_picture(item: Any) -> bool:
    """Whether an item of a prompt is a picture or the list of a video's frames."""
    if isinstance(item, list | tuple):
        return bool(item) and all(is_picture(frame) and not isinstance(frame, list | tuple) for frame in item)
    return isinstance(item, PICTURE)


def as_batch(prompt: Prompt | Sequence[Prompt]) -> tuple[list[Prompt], bool]:
    """One prompt or several -> (list of prompts, whether several were given).

    Several prompts are a list of lists, at least one of which holds text. Without text, [[a, b], [c, d]] is one prompt
    of two videos.
    """
    parts: Sequence[Any] = items(prompt)
    several = bool(parts) and all(isinstance(item, list | tuple) for item in parts)
    several = several and any(isinstance(part, str) for item in parts for part in item)
    return (list(parts), True) if several else ([parts], False)


def items(prompt: Prompt) -> Sequence[Any]:
    """The texts and pictures of a prompt. A text or a picture alone is a prompt, too.

    Raises:
      ValueError: it is none, nor a list of them. A generator could be read only once, a set has no order.
    """
    if isinstance(prompt, str | PICTURE):
        return [prompt]
    refuse_other_than_list(prompt, 'The prompt is', 'a list of strings and pictures in reading order')
    return prompt


def refuse_other_than_list(given: Any, what: str, needed: str) -> None:
    """ValueError for what is neither a list nor another sequence, such as a dict, a set, a generator or a text."""
    if isinstance(given, str | bytes | bytearray) or not isinstance(given, Sequence | np.ndarray):
        raise UserError(f'{what} of type {type(given).__name__}. Give {needed}.')


def is_continued(prompt: Prompt, tokenizer: Tokenizer) -> bool:
    """Whether a text after this prompt continues its last text, with no picture and no <EOC> between them.

    Always True for a tokenizer with `prefix_once`, where everything but the first item is a continuation.
    """
    layout = Layout(tokenizer)
    for item in items(prompt):
        layout.text(composed(item, 'A text of the prompt')) if isinstance(item, str) else layout.picture()
    return layout.continues


class Encoded(NamedTuple):
    """A prompt as tokens, with its pictures as they were given.

    Attributes:
      begins: where the tag of each picture begins among the tokens.
      identities: of each picture.
    """

    tokens: list[int]
    pictures: list[Any]
    begins: list[int]
    identities: list[Hashable]

    def first(self, length: int) -> 'Encoded':
        """Its first tokens, with their pictures."""
        n = sum(begin < length for begin in self.begins)
        return Encoded(self.tokens[:length], self.pictures[:n], self.begins[:n], self.identities[:n])

    def same(self, other: 'Encoded') -> bool:
        """Whether both have the same tokens and pictures."""
        return (self.tokens, self.identities) == (other.tokens, other.identities)

    def begins_with(self, other: 'Encoded') -> bool:
        """Whether it is the other and at least one more token."""
        return len(self.tokens) > len(other.tokens) and self.first(len(other.tokens)).same(other)


def common_beginning(prompts: Sequence[Encoded], tokenizer: Tokenizer) -> int:
    """The number of tokens with which all these prompts begin, pictures included, up to the end of a chunk.

    Where the common text has no such end, it is the last common token. At least one token of each prompt is left.
    """
    one, most = prompts[0], min(len(prompt.tokens) for prompt in prompts) - 1
    same = (np.array([prompt.tokens[:most] for prompt in prompts]) == one.tokens[:most]).all(axis=0)
    end = most if same.all() else int(same.argmin())
    for i, begin in enumerate(one.begins):
        if begin < end:
            cut = begin + len(tokenizer.image_tag) > end
            if cut or any(prompt.identities[i] != one.identities[i] for prompt in prompts):
                end = begin
    ends = [i + 1 for i, token in enumerate(one.tokens[:end]) if token == tokenizer.eoc]
    return max([begin for begin in one.begins if begin <= end] + ends, default=end)


def identity(picture: Any) -> Hashable:
    """What tells a picture from others: of a file its path, size and time, of anything else its content."""
    if isinstance(picture, list | tuple):
        return tuple(identity(frame) for frame in picture)
    if isinstance(picture, Unread):
        return picture.identity
    if isinstance(picture, bytes):
        return hashlib.blake2b(picture, digest_size=16).digest()
    if isinstance(picture, np.ndarray):
        return str(picture.dtype), picture.shape, identity(np.ascontiguousarray(picture).tobytes())
    try:
        if isinstance(picture, pathlib.Path):
            stat = picture.stat()
            return str(picture), stat.st_size, stat.st_mtime_ns
        # Pixels, and what else changes how they look.
        look = picture.getpalette(), picture.info.get('transparency'), picture.getexif().get(ORIENTATION)
        return picture.mode, picture.size, repr(look), identity(picture.tobytes())
    except Exception:  # A file that cannot be read. What reads it says so.
        return object()


def composed(text: str, what: str) -> str:
    """A text in Unicode's composed form (NFC), in which language models read nearly all text.

    So `mèo` is the same prompt whether a keyboard writes è as one character or as two.

    Raises:
      ValueError: half of a surrogate pair, which no encoding of a text holds. `what` names the text in the message.
    """
    if half := re.search('[\ud800-\udfff]', text):
        raise UserError(
            f'{what} is not valid Unicode: its character {half.start()} is half of a surrogate pair, at the end of '
            f'{text[: half.end()][-20:]!r}. Give the text as UTF-8.'
        )
    return unicodedata.normalize('NFC', text)


def encode(prompt: Prompt, tokenizer: Tokenizer) -> Encoded:
    """The tokens of one prompt, written as `inputs/layout.py` says, and its pictures. Texts are `composed`.

    Raises:
      ValueError: an empty prompt, an <image> tag without a picture, an item that is neither text nor picture, a text
        that is the path of a picture file, or one that is no valid Unicode.
    """
    prompt = items(prompt)
    if not prompt:
        raise UserError('The prompt is empty. Give at least one string or picture.')
    layout, pictures = Layout(tokenizer), []
    for number, item in enumerate(prompt if tokenizer.around is None else _as_idefics(prompt, tokenizer)):
        if isinstance(item, str):
            text = composed(item, f'Item {number} of the prompt')
            if IMAGE in re.sub(QUOTED, '', text) and tokenizer.image_tag:
                raise UserError(
                    f'Item {number} of the prompt is text that contains the tag {IMAGE} ({text.count(IMAGE)} times). '
                    'Replace each tag by the picture itself, as an item of the list. If these characters are meant, '
                    'give `flamingo.tokenizer.literal(text)`.'
                )
            if item.lower().endswith(PICTURE_SUFFIXES) and os.path.isfile(item):
                raise UserError(
                    f'Item {number} of the prompt is the text {item!r}, which is the name of a picture file. To show '
                    f'the picture, give pathlib.Path({item!r}).'
                )
            layout.text(text)
        elif is_picture(item):
            if not tokenizer.image_tag:
                raise UserError(
                    f'Item {number} of the prompt is a picture, but this bundle is a language model without vision.'
                )
            layout.picture()
            pictures.append(item)
        else:
            raise UserError(
                f'Item {number} of the prompt is of type {type(item).__name__}. Give a string or a picture.'
            )
    if not layout.tokens:
        raise UserError(
            'The prompt is an empty text, which this language model cannot continue. Give at least one word.'
        )
    return Encoded(layout.tokens, pictures, layout.begins, [identity(picture) for picture in pictures])


def as_frames(picture: Any, format: PictureFormat) -> Frames:
    """A picture of a prompt as the model takes it. PictureError if it cannot be read."""
    is_features = isinstance(picture, np.ndarray) and picture.dtype in (np.float16, np.float32) and picture.ndim == 3
    return picture if is_features else to_frames(picture, format.size, format.fit)


def encode_prompt(prompt: Prompt, tokenizer: Tokenizer, pictures: PictureFormat) -> tuple[list[int], list[Frames]]:
    """The tokens of one prompt and its pictures as the model takes them. Errors as for `encode` and `as_frames`."""
    encoded = encode(prompt, tokenizer)
    return encoded.tokens, [as_frames(picture, pictures) for picture in encoded.pictures]


def _as_idefics(prompt: Prompt, tokenizer: Tokenizer) -> Prompt:
    """Prepares a prompt as IDEFICS's own processor does: strips spaces, and joins neighbouring texts or utterances.

    It puts no second mark after an utterance that is written with its own.
    """
    joined, end = [], UTTERANCE_END if UTTERANCE_END in tokenizer.extra_tokens else ''
    for item in items(prompt):
        item = item.strip(' ') if isinstance(item, str) else item
        if isinstance(item, str) and joined and isinstance(joined[-1], str):
            joined[-1] += item if joined[-1].rstrip().endswith(ENDS_OF_CHUNK) else end + item
        else:
            joined.append(item)
    return joined
