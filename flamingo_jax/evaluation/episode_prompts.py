"""The prompt of an episode, and what stands in it for its images: the images, words, or nothing."""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.prompts import encode
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.tasks.episode import Episode, Part

Shown = Callable[[Part], Any]


def prompt_of(episode: Episode, shown: Shown | None, tokenizer: Tokenizer) -> list[Any]:
    """Images, or what `shown` puts in their place (None leaves them out), and texts in reading order.

    A mark such as <EOC> in a text of the data set is its characters.
    """
    prompt = examples_of(episode, len(episode.support), shown, tokenizer)
    for part in episode.query:
        last = part is episode.query[-1] or part.goes_on
        prompt += _items_of(part, shown, '' if last else tokenizer.chunk_end, tokenizer)
    # Without images a prompt may be empty, and some language models have no token to begin with.
    if not tokenizer.begin and all(isinstance(item, str) and not item for item in prompt):
        prompt = [tokenizer.chunk_end]
    return prompt


def examples_of(episode: Episode, number: int, shown: Shown | None, tokenizer: Tokenizer) -> list[Any]:
    """How a prompt begins, with its first examples; arguments as for `prompt_of`."""
    prompt: list[Any] = [tokenizer.literal(episode.begins)] if episode.begins else []
    for part in episode.support[:number]:
        end = '' if part.goes_on else f'{tokenizer.chunk_end}{episode.between}'
        prompt += _items_of(part, shown, end, tokenizer)
    return prompt


def _items_of(part: Part, shown: Shown | None, end: str, tokenizer: Tokenizer) -> list[Any]:
    """A part with the `end` of its text. Words in an image's place are one text with it, so that each part has one."""
    if part.image is None or shown is None:
        return [tokenizer.literal(part.text) + end]
    image = shown(part)
    if isinstance(image, str):
        return [tokenizer.literal(image + part.text) + end]
    return [image, tokenizer.literal(part.text) + end]


def frames(part: Part) -> Any:
    """The image of a part, read from its source."""
    return part.of.frames(part.image)


def identity(part: Part) -> Any:
    """What tells the image of a part from all others."""
    return dict(image=part.of.identity(part.image))


def words(part: Part) -> str:
    """What the image of a part shows, in words: `A cat.`, or `A cat` before a colon."""
    said = part.of.words(part.image)
    return said.removesuffix('.') if part.text.startswith(':') else said


def lengths_of(model: Pretrained, episodes: Sequence[Episode], shown: Shown | None) -> list[int]:
    """The number of tokens of each prompt. No image is read. Two towers read no prompts: 0."""
    if model.config.contrastive is not None:
        return [0] * len(episodes)
    image = np.zeros((1, 1, 1), np.float32)  # Replaces every image, since all tags have the same number of tokens.
    tokenizer = copy.copy(model.tokenizer)
    tokenizer.encode = functools.cache(model.tokenizer.encode)  # Prompts share most of their texts.
    shown = (lambda _: image) if shown is frames else shown
    return [len(encode(prompt_of(episode, shown, tokenizer), tokenizer).tokens) for episode in episodes]
