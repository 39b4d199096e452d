"""A prompt as a user writes it, strings and images in reading order -> tokens and images.

    [image, ' dog<EOC>', image, ' cat<EOC>', image]

A string is text; '<EOC>' in it ends a chunk, except in a data set's own text (`Tokenizer.literal`) and in a dialogue
(`chat`). Do not write the tag <image>: put the image there. An image is a PIL image, an array, a pathlib.Path,
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
from flamingo_jax.inputs.images import PLACES, Frames, ImageFormat, Unread, tiles, to_frames
from flamingo_jax.inputs.layout import Layout
from flamingo_jax.inputs.tokenizer import ENDS_OF_CHUNK, IMAGE, QUOTE, QUOTED, Tokenizer

IMAGE_LIKE = Image.Image | np.ndarray | pathlib.Path | bytes | Unread
Prompt = Sequence[Any] | IMAGE_LIKE
UTTERANCE_END = ENDS_OF_CHUNK[-1]
ORIENTATION = 0x0112  # In EXIF.


class ChatMarks(NamedTuple):
    """What stands around the turns of a dialogue."""

    tells: str
    asks: str
    ends_turn: str
    answers: str
    between: str  # Turns.
    says: str = ''  # Before what is answered.
    images_first: bool = False  # In a turn, each on a line of its own; its text then has no spaces at its ends.


# The marks of ChatML.
TELLS, ASKS, ENDS_TURN = '<|im_start|>system\n', '<|im_start|>user\n', '<|im_end|>'
ANSWERS = f'{ENDS_TURN}\n<|im_start|>assistant\n'
CHATML = ChatMarks(TELLS, ASKS, ENDS_TURN, ANSWERS, between='\n')
_ROLE = '<|start_header_id|>{}<|end_header_id|>\n\n'
LLAMA3 = ChatMarks(
    *(_ROLE.format(role) for role in ('system', 'user')),
    ends_turn='<|eot_id|>',
    answers='<|eot_id|>' + _ROLE.format('assistant'),
    between='',
)
# Plain words: who is asked can be made to write the other's turn.
VICUNA = ChatMarks('', 'USER: ', ' ', ' ASSISTANT:', between='', says=' ', images_first=True)
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.gif', '.bmp', '.tif', '.tiff')


def chat(*turns: Prompt | str, system: str = '', marks: ChatMarks = CHATML) -> list[Any]:
    """The prompt of a dialogue, marked as ChatML or as `marks` say (`dialogue_of` a model's tokenizer).

        chat([image, ' What is it like?'])
        chat([image, ' What is it like?'], 'It is a spider.', 'Write a poem about it.')
        chat([image, 'What is it like?'], marks=VICUNA)          USER: <image>\\nWhat is it like? ASSISTANT:

    What is said is mere text: `<|im_end|>`, '<EOC>' or <image> in it is read as its characters, so that nobody can
    write the other's turn. Several images of a turn have no labels, and its text may see the last one alone: where a
    question tells them apart, write ` first` and ` second` after them, as `tasks/which.py` does in training.

    Args:
      turns: what is asked, the answer to it, what is asked next, and so on. Each is a text, or texts and images.
      system: what the model is told before the dialogue; '' for nothing.
      marks: CHATML (SmolLM2, Qwen), LLAMA3 (Llama 3.2 Vision) or VICUNA (LLaVA 1.5).

    Of a model whose tokenizer has no such marks (`dialogue_of`), they are mere text.
    """
    prompt: list[Any] = []
    told = f'{marks.tells}{mere(system)}{marks.ends_turn}{marks.between}' if system else ''
    for i, turn in enumerate(turns):
        asks = (marks.between if i else told) + marks.asks
        begin, end = (marks.says, marks.ends_turn) if i % 2 else (asks, marks.answers)
        said = [mere(item) if isinstance(item, str) else item for item in items(turn)]
        prompt += join_texts([begin, *(_images_first(said) if marks.images_first else said), end])
    return join_texts(prompt) if marks is VICUNA else prompt  # Plain words are one text, as its template writes it.


def _images_first(said: Sequence[Any]) -> list[Any]:
    """A turn's images, each with a new line behind it, and then its texts."""
    shown = [[item, '\n'] for item in said if not isinstance(item, str)]
    return [*itertools.chain(*shown), ''.join(item for item in said if isinstance(item, str)).strip()]


def join_texts(prompt: Sequence[Any]) -> list[Any]:
    """A prompt in which neighbouring texts are one text."""
    grouped = itertools.groupby(prompt, lambda item: isinstance(item, str))
    return [item for is_text, group in grouped for item in ([''.join(group)] if is_text else group)]


def mere(text: str) -> str:
    """A text in which nothing is a mark or a tag, whatever the tokenizer. All of them begin with '<'.

    With a tokenizer at hand, `Tokenizer.literal` quotes only a text with its own marks.
    """
    return QUOTE + text.replace(QUOTE, '') + QUOTE if '<' in text or QUOTE in text else text


def in_tiles(image: Image.Image, side: int = 2) -> list[Any]:
    """An image as its tiles, each with its place, and then as a whole (as in LLaVA 1.6, Liu et al. 2024).

        [*in_tiles(PIL.Image.open('desk.jpg')), ' Question: where is the cup? Answer:']
        [*in_tiles(PIL.Image.open('desk.jpg'), 3), ' Question: how many: cup? Answer:']

    Args:
      image: of any size.
      side: 2 for quarters, 3 for ninths; ValueError for another number.

    So the bridge of `experiments/smollm_pictures.py` was asked where things are, and of nine tiles how many.
    """
    if side not in PLACES:
        raise UserError(f'Tiles have names in 2 rows of 2 and in 3 of 3, and not in {side} of {side}.')
    whole, *parts = tiles(image, side)
    prompt: list[Any] = []
    for part, place in zip(parts, PLACES[side], strict=True):
        prompt += [part, f' {place}']
    return [*prompt, whole]


def dialogue_of(tokenizer: Tokenizer) -> ChatMarks | None:
    """The marks of dialogues as a model was trained, for `chat`; None for a model that was not.

    Its chat template says which, if its source has one. Else it is ChatML, if that is what its tokenizer has.
    """
    for marks, sign in ((VICUNA, 'ASSISTANT:'), (LLAMA3, '<|start_header_id|>')):
        if sign in tokenizer.chat_template:
            return marks
    return CHATML if chats(tokenizer) else None


def end_of_answer(marks: ChatMarks, tokenizer: Tokenizer) -> str:
    """What a model writes at the end of an answer: the mark of the turn's end, or its tokenizer's end."""
    return marks.ends_turn.strip() or tokenizer.name(tokenizer.eos)


def chats(tokenizer: Tokenizer) -> bool:
    """Whether a language model's tokenizer has the marks of ChatML."""
    one, other = (tokenizer.encode(mark, continues=True) for mark in ('<|im_start|>', ENDS_TURN))
    return len(one) == len(other) == 1 and one != other  # Both may be unknown.


def is_image(item: Any) -> bool:
    """Whether an item of a prompt is an image or the list of a video's frames."""
    if isinstance(item, list | tuple):
        return bool(item) and all(is_image(frame) and not isinstance(frame, list | tuple) for frame in item)
    return isinstance(item, IMAGE_LIKE)


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
    """The texts and images of a prompt. A text or an image alone is a prompt, too.

    Raises:
      ValueError: it is none, nor a list of them. A generator could be read only once, a set has no order.
    """
    if isinstance(prompt, str | IMAGE_LIKE):
        return [prompt]
    refuse_other_than_list(prompt, 'The prompt is', 'a list of strings and images in reading order')
    return prompt


def refuse_other_than_list(given: Any, what: str, needed: str) -> None:
    """ValueError for what is neither a list nor another sequence, such as a dict, a set, a generator or a text."""
    if isinstance(given, str | bytes | bytearray) or not isinstance(given, Sequence | np.ndarray):
        raise UserError(f'{what} of type {type(given).__name__}. Give {needed}.')


def is_continued(prompt: Prompt, tokenizer: Tokenizer) -> bool:
    """Whether a text after this prompt continues its last text, with no image and no <EOC> between them.

    Always True for a tokenizer with `prefix_once`, where everything but the first item is a continuation.
    """
    layout = Layout(tokenizer)
    for item in items(prompt):
        layout.text(composed(item, 'A text of the prompt')) if isinstance(item, str) else layout.image()
    return layout.continues


class Encoded(NamedTuple):
    """A prompt as tokens, with its images as they were given.

    Attributes:
      begins: where the tag of each image begins among the tokens.
      identities: of each image.
    """

    tokens: list[int]
    images: list[Any]
    begins: list[int]
    identities: list[Hashable]

    def first(self, length: int) -> 'Encoded':
        """Its first tokens, with their images."""
        n = sum(begin < length for begin in self.begins)
        return Encoded(self.tokens[:length], self.images[:n], self.begins[:n], self.identities[:n])

    def same(self, other: 'Encoded') -> bool:
        """Whether both have the same tokens and images."""
        return (self.tokens, self.identities) == (other.tokens, other.identities)

    def begins_with(self, other: 'Encoded') -> bool:
        """Whether it is the other and at least one more token."""
        return len(self.tokens) > len(other.tokens) and self.first(len(other.tokens)).same(other)


def common_beginning(prompts: Sequence[Encoded], tokenizer: Tokenizer) -> int:
    """The number of tokens with which all these prompts begin, images included, up to the end of a chunk.

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


def identity(image: Any) -> Hashable:
    """What tells an image from others: of a file its path, size and time, of anything else its content."""
    if isinstance(image, list | tuple):
        return tuple(identity(frame) for frame in image)
    if isinstance(image, Unread):
        return image.identity
    if isinstance(image, bytes):
        return hashlib.blake2b(image, digest_size=16).digest()
    if isinstance(image, np.ndarray):
        return str(image.dtype), image.shape, identity(np.ascontiguousarray(image).tobytes())
    try:
        if isinstance(image, pathlib.Path):
            stat = image.stat()
            return str(image), stat.st_size, stat.st_mtime_ns
        # Pixels, and what else changes how they look.
        look = image.getpalette(), image.info.get('transparency'), image.getexif().get(ORIENTATION)
        return image.mode, image.size, repr(look), identity(image.tobytes())
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
    """The tokens of one prompt, written as `inputs/layout.py` says, and its images. Texts are `composed`.

    Raises:
      ValueError: an empty prompt, an <image> tag without an image, an item that is neither text nor image, a text
        that is the path of an image file, or one that is no valid Unicode.
    """
    prompt = items(prompt)
    if not prompt:
        raise UserError('The prompt is empty. Give at least one string or image.')
    layout, images = Layout(tokenizer), []
    for number, item in enumerate(prompt if tokenizer.around is None else _as_idefics(prompt, tokenizer)):
        if isinstance(item, str):
            text = composed(item, f'Item {number} of the prompt')
            if IMAGE in re.sub(QUOTED, '', text) and tokenizer.image_tag:
                raise UserError(
                    f'Item {number} of the prompt is text that contains the tag {IMAGE} ({text.count(IMAGE)} times). '
                    'Replace each tag by the image itself, as an item of the list. If these characters are meant, '
                    'give `flamingo.tokenizer.literal(text)`.'
                )
            if item.lower().endswith(IMAGE_SUFFIXES) and os.path.isfile(item):
                raise UserError(
                    f'Item {number} of the prompt is the text {item!r}, which is the name of an image file. To show '
                    f'the image, give pathlib.Path({item!r}).'
                )
            layout.text(text)
        elif is_image(item):
            if not tokenizer.image_tag:
                raise UserError(
                    f'Item {number} of the prompt is an image, but this bundle is a language model without vision.'
                )
            layout.image()
            images.append(item)
        else:
            raise UserError(f'Item {number} of the prompt is of type {type(item).__name__}. Give a string or an image.')
    if not layout.tokens:
        raise UserError(
            'The prompt is an empty text, which this language model cannot continue. Give at least one word.'
        )
    return Encoded(layout.tokens, images, layout.begins, [identity(image) for image in images])


def as_frames(image: Any, format: ImageFormat) -> Frames:
    """An image of a prompt as the model takes it. ImageError if it cannot be read."""
    is_features = isinstance(image, np.ndarray) and image.dtype in (np.float16, np.float32) and image.ndim == 3
    return image if is_features else to_frames(image, format.size, format.fit)


def encode_prompt(prompt: Prompt, tokenizer: Tokenizer, image_format: ImageFormat) -> tuple[list[int], list[Frames]]:
    """The tokens of one prompt and its images as the model takes them. Errors as for `encode` and `as_frames`."""
    encoded = encode(prompt, tokenizer)
    return encoded.tokens, [as_frames(image, image_format) for image in encoded.images]


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
