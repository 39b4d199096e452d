"""What a model has read and will read again: the images of examples, and the beginnings that prompts share."""

import bisect
import collections
import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from flamingo_jax.inference.decode import Text
from flamingo_jax.inputs.prompts import Encoded, common_beginning
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.flamingo import Media

IMAGES = 2**30  # Bytes of media tokens on the host: 4,096 images of 64 tokens of width 1,024 in float32.
BEGINNINGS = 4  # Caches of as many beginnings stay on the device.
# Tokens. A shorter beginning is read again with each prompt: each pair of lengths is another program to compile.
WORTHWHILE = 32


class Beginning(NamedTuple):
    """A beginning of prompts, read."""

    prompt: Encoded
    media: Media | None
    text: Text


class MediaCache:
    """The media tokens of the images that were shown last."""

    def __init__(self, resample: Callable[[list], Sequence[Float[np.ndarray, 'r e']]]):
        """resample: images of prompts -> their media tokens."""
        self._resample = resample
        self._kept: collections.OrderedDict[Hashable, np.ndarray] = collections.OrderedDict()
        self._bytes = 0

    def of(
        self, prompts: Sequence[Encoded], at_once: int | None = None, between: Callable[[], None] = lambda: None
    ) -> list[list[Float[np.ndarray, 'r e']]]:
        """The media tokens of each prompt's images. Those of an image are computed once.

        Args:
          at_once: most frames of several images that are computed at a time; None: all.
          between: called after each time.
        """
        shown = {i: image for p in prompts for i, image in zip(p.identities, p.images, strict=True)}
        found = {i: self._kept[i] for i in shown if i in self._kept}
        new = [i for i in shown if i not in found]
        while new:
            frames = list(itertools.accumulate(_frames(shown[i]) for i in new))
            number = len(new) if at_once is None else max(1, bisect.bisect_right(frames, at_once))
            found |= zip(new[:number], self._resample([shown[i] for i in new[:number]]), strict=True)
            new = new[number:]
            between()
        for i, tokens in found.items():
            self._bytes += 0 if i in self._kept else tokens.nbytes
            self._kept[i] = tokens
            self._kept.move_to_end(i)
        while self._bytes > IMAGES:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return [[found[i] for i in prompt.identities] for prompt in prompts]


def _frames(image: Any) -> int:
    """1 of a still, or features of one; the frames of a video."""
    return len(image) if isinstance(image, list | tuple) or isinstance(image, np.ndarray) and image.ndim == 4 else 1


class Beginnings:
    """The beginnings that were read last."""

    def __init__(self, read: Callable[[Encoded], Beginning], tokenizer: Tokenizer):
        """read: reads a beginning."""
        self._read, self._tokenizer = read, tokenizer
        self._kept: list[Beginning] = []

    def add(self, prompt: Encoded) -> Beginning:
        """Reads a beginning, unless it is kept."""
        found = next((one for one in self._kept if one.prompt.same(prompt)), None) or self._read(prompt)
        self._kept = [found, *(one for one in self._kept if one is not found)][:BEGINNINGS]
        return found

    def kept(self, prompts: Sequence[Encoded]) -> Beginning | None:
        """The longest beginning of all these prompts that is kept."""
        kept = [one for one in self._kept if all(prompt.begins_with(one.prompt) for prompt in prompts)]
        return max(kept, key=lambda one: len(one.prompt.tokens), default=None)

    def of(self, prompts: Sequence[Encoded]) -> Beginning | None:
        """The longest beginning of all these prompts that is kept, or that is worth reading for them alone."""
        longest = self.kept(prompts)
        known = 0 if longest is None else len(longest.prompt.tokens)
        several = any(not prompt.same(prompts[0]) for prompt in prompts[1:])
        common = common_beginning(prompts, self._tokenizer) if several else 0
        if common >= known + WORTHWHILE:
            return self.add(prompts[0].first(common))
        return None if longest is None else self.add(longest.prompt)
