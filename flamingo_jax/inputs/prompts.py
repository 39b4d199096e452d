"""A prompt as a user writes it, strings and pictures in reading order -> tokens and pictures.

    [picture, ' dog<EOC>', picture, ' cat<EOC>', picture]

A string is text; '<EOC>' in it ends a chunk. Do not write the tag <image>: put the picture there. A picture is a PIL
image, an array, a pathlib.Path, encoded bytes, a list of those (the frames of a video), or an array [t s d_v] of
features that were computed before.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from flamingo_jax.inputs.images import Frames, PictureFormat, to_frames
from flamingo_jax.inputs.layout import Layout
from flamingo_jax.inputs.tokenizer import ENDS_OF_CHUNK, IMAGE, Tokenizer

Prompt = Sequence[Any]
UTTERANCE_END = ENDS_OF_CHUNK[-1]
PICTURE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.gif', '.bmp', '.tif', '.tiff')


def is_picture(item: Any) -> bool:
    """Whether an item of a prompt is a picture or the list of a video's frames."""
    if isinstance(item, list | tuple):
        return bool(item) and all(is_picture(frame) and not isinstance(frame, list | tuple) for frame in item)
    return isinstance(item, Image.Image | np.ndarray | pathlib.Path | bytes)


def as_batch(prompt: Prompt | Sequence[Prompt]) -> tuple[list[Prompt], bool]:
    """One prompt or several -> (list of prompts, whether several were given).

    Several prompts are a list of lists, at least one of which holds text. Without text, [[a, b], [c, d]] is one prompt
    of two videos.
    """
    if isinstance(prompt, str):
        return [[prompt]], False
    several = bool(prompt) and all(isinstance(item, list | tuple) for item in prompt)
    several = several and any(isinstance(part, str) for item in prompt for part in item)
    return (list(prompt), True) if several else ([prompt], False)


def is_continued(prompt: Prompt, tokenizer: Tokenizer) -> bool:
    """Whether a text after this prompt continues its last text, with no picture and no <EOC> between them.

    Always True for a tokenizer with `prefix_once`, where everything but the first item is a continuation.
    """
    layout = Layout(tokenizer)
    for item in prompt:
        layout.text(item) if isinstance(item, str) else layout.picture()
    return layout.continues


def encode_prompt(prompt: Prompt, tokenizer: Tokenizer, pictures: PictureFormat) -> tuple[list[int], list[Frames]]:
    """The tokens of one prompt, written as `inputs/layout.py` says, and its pictures as the model takes them.

    Raises:
      ValueError: an empty prompt, an <image> tag without a picture, an item that is neither text nor picture, or a text
        that is the path of a picture file.
      PictureError: a picture that cannot be read.
    """
    if not prompt:
        raise ValueError('The prompt is empty. Give at least one string or picture.')
    layout, frames = Layout(tokenizer), []
    for number, item in enumerate(prompt if tokenizer.around is None else _as_idefics(prompt, tokenizer)):
        if isinstance(item, str):
            if IMAGE in item and tokenizer.image_tag:
                raise ValueError(
                    f'Item {number} of the prompt is text that contains the tag {IMAGE} ({item.count(IMAGE)} times). '
                    'Replace each tag by the picture itself, as an item of the list.'
                )
            if item.lower().endswith(PICTURE_SUFFIXES) and os.path.isfile(item):
                raise ValueError(
                    f'Item {number} of the prompt is the text {item!r}, which is the name of a picture file. To show '
                    f'the picture, give pathlib.Path({item!r}).'
                )
            layout.text(item)
        elif is_picture(item):
            if not tokenizer.image_tag:
                raise ValueError(
                    f'Item {number} of the prompt is a picture, but this bundle is a language model without vision.'
                )
            layout.picture()
            frames.append(read_picture(item, pictures))
        else:
            raise ValueError(
                f'Item {number} of the prompt is of type {type(item).__name__}. Give a string or a picture.'
            )
    if not layout.tokens:
        raise ValueError(
            'The prompt is an empty text, which this language model cannot continue. Give at least one word.'
        )
    return layout.tokens, frames


def read_picture(item: Any, pictures: PictureFormat) -> Frames:
    """A picture of a prompt as the model takes it; PictureError if it cannot be read."""
    is_features = isinstance(item, np.ndarray) and item.dtype in (np.float16, np.float32) and item.ndim == 3
    return item if is_features else to_frames(item, pictures.size, pictures.fit)


def _as_idefics(prompt: Prompt, tokenizer: Tokenizer) -> Prompt:
    """Prepares a prompt as IDEFICS's own processor does: strips spaces, and joins neighbouring texts or utterances."""
    joined, between = [], UTTERANCE_END if UTTERANCE_END in tokenizer.extra_tokens else ''
    for item in prompt:
        item = item.strip(' ') if isinstance(item, str) else item
        if isinstance(item, str) and joined and isinstance(joined[-1], str):
            joined[-1] += between + item
        else:
            joined.append(item)
    return joined
