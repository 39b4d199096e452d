"""A prompt as its user writes it: strings and pictures in reading order -> tokens and pictures.

    [picture, ' dog<EOC>', picture, ' cat<EOC>', picture]

A string is text; '<EOC>' in it ends a chunk. The tag <image> is not written: a picture stands for itself. A picture is
a PIL image, an array, a pathlib.Path, encoded bytes, or a list of those (the frames of a video), or an array [t s d_v] of
features computed before.
"""

import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from flamingo_jax.inputs.images import to_frames
from flamingo_jax.inputs.interleave import Frames
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

    Several prompts are a list of lists that each hold some text; [[a, b], [c, d]] of pictures alone is one prompt of two
    videos.
    """
    if isinstance(prompt, str):
        return [[prompt]], False
    several = bool(prompt) and all(isinstance(item, list | tuple) for item in prompt)
    several = several and any(isinstance(part, str) for item in prompt for part in item)
    return (list(prompt), True) if several else ([prompt], False)


def is_continued(prompt: Prompt, tokenizer: Tokenizer) -> bool:
    """Whether a text after this prompt goes on with its last text: no picture and no <EOC> is between them.

    True after whatever prompt for a tokenizer that tells only the first thing from what follows.
    """
    if tokenizer.prefix_once:
        return bool(prompt)
    texts = itertools.takewhile(lambda item: isinstance(item, str), reversed(prompt))
    last = next(filter(None, texts), '')
    return bool(last) and not last.endswith(ENDS_OF_CHUNK)


def encode_prompt(
    prompt: Prompt, tokenizer: Tokenizer, image_size: int, fit: str = 'pad'
) -> tuple[list[int], list[Frames]]:
    """Tokens and pictures of one prompt: <BOS> where the language model has it, an <EOC> before each picture but the first thing.

    A tokenizer of IDEFICS has no <EOC> there, but a token around each picture, of which neighbouring pictures share one.

    Raises:
      ValueError: an empty prompt, an <image> tag without a picture, an item that is neither text nor picture, or a text
        that is the path of a picture.
      PictureError: a picture that cannot be read.
    """
    if not prompt:
        raise ValueError('The prompt is empty: give at least one string or picture.')
    tokens, pictures, ended = (
        list(tokenizer.begin) if tokenizer.around is None else [tokenizer.bos],
        [],
        True,
    )  # ended: no chunk is open.
    prompt = prompt if tokenizer.around is None else _as_idefics(prompt, tokenizer)
    for number, item in enumerate(prompt):
        if isinstance(item, str):
            if IMAGE in item and tokenizer.image_tag:
                raise ValueError(
                    f'Item {number} of the prompt has {item.count(IMAGE)} {IMAGE} tags more than pictures: put the picture '
                    'itself into the list where the tag would stand.'
                )
            if item.lower().endswith(PICTURE_SUFFIXES) and os.path.isfile(item):
                raise ValueError(
                    f'Item {number} of the prompt is the text {item!r}, which names a file: for the picture in it, give '
                    f'pathlib.Path({item!r}).'
                )
            tokens += tokenizer.encode(item, is_continued(prompt[:number], tokenizer))
            ended = item.endswith(ENDS_OF_CHUNK) if item else ended
        elif is_picture(item):
            if not tokenizer.image_tag:
                raise ValueError(f'Item {number} of the prompt is a picture, but this bundle is a bare language model.')
            if tokenizer.around is not None:
                tokens += ([] if tokens[-1:] == [tokenizer.around] else [tokenizer.around]) + [
                    *tokenizer.image_tag,
                    tokenizer.around,
                ]
            else:
                tokens += ([] if ended else [tokenizer.eoc]) + list(tokenizer.image_tag)
            is_features = isinstance(item, np.ndarray) and item.dtype in (np.float16, np.float32) and item.ndim == 3
            pictures.append(item if is_features else to_frames(item, image_size, fit))
            ended = False
        else:
            raise ValueError(f'Item {number} of the prompt is a {type(item).__name__}: neither a string nor a picture.')
    if not tokens:
        raise ValueError('The prompt is an empty text, which this language model cannot continue: give a first word.')
    return tokens, pictures


def _as_idefics(prompt: Prompt, tokenizer: Tokenizer) -> Prompt:
    """As IDEFICS's own processor prepares prompts: no spaces around texts, and one text, or utterance, after another joined."""
    joined, between = [], UTTERANCE_END if UTTERANCE_END in tokenizer.extra_tokens else ''
    for item in prompt:
        item = item.strip(' ') if isinstance(item, str) else item
        if isinstance(item, str) and joined and isinstance(joined[-1], str):
            joined[-1] += between + item
        else:
            joined.append(item)
    return joined
