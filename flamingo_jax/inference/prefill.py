"""How a model reads prompts: each image once, and once what several prompts begin with."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from flamingo_jax.inference import decode
from flamingo_jax.inference.prompt_cache import Beginning, Beginnings, MediaCache
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.prompts import Encoded, as_frames
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.flamingo import Flamingo, Media, Params
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import rules


class Shape(NamedTuple):
    """In which shape prompts are read."""

    before: Beginning | None  # What is not read again.
    known: int  # The number of its tokens.
    seen: int  # The number of its images.
    length: int  # The number of tokens after it.
    images: int  # After it.


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads prompts, and remembers what it has seen."""

    model: Flamingo
    params: Params
    tokenizer: Tokenizer
    format: ImageFormat
    mesh: jax.sharding.Mesh | None = None

    @functools.cached_property
    def images(self) -> MediaCache:
        """The media tokens of the images that were shown last."""

        def resample(images: list[Any]) -> list[Float[np.ndarray, 'r e']]:
            with concurrent.futures.ThreadPoolExecutor() as decoders:  # PIL lets other threads run.
                frames = list(decoders.map(lambda image: as_frames(image, self.format), images))
            with rules.activations(self.mesh):
                return decode.resample(self.model, self.params, frames)

        return MediaCache(resample)

    @functools.cached_property
    def beginnings(self) -> Beginnings:
        """The beginnings of prompts that were read last."""
        return Beginnings(self._read_beginning, self.tokenizer)

    def read(self, prompts: Sequence[Encoded], few_programs: bool = False) -> decode.Prompts:
        """Reads prompts, after their beginning if they share one: their media, their text, and the logits after each.

        Args:
          few_programs: as for `shape`.
        """
        before, known, seen, length, n = self.shape(prompts, few_programs)
        media = self._media([row[seen:] for row in self.images.of(prompts)], n)
        tokens, valid = self._padded([prompt.tokens[known:] for prompt in prompts], length)
        if before is not None and before.media is not None:
            media = before.media if media is None else before.media.beside(media)
        with rules.activations(self.mesh):
            text = None if before is None else before.text
            logits, text = _prefill(self.model, self.params, media, tokens, valid, 0, text)
        return decode.Prompts(media, text, logits)

    def shape(self, prompts: Sequence[Encoded], few_programs: bool = False) -> Shape:
        """In which shape prompts are read. Lengths are padded to few sizes, since each is another program to compile.

        Args:
          few_programs: reads after beginnings that are remembered, but does not look for others. Pads texts and the
            number of images to powers of two, and gives a text without images an empty place for one. Prompts of
            all lengths are then read by a few programs, which take up to twice as long.
        """
        before = self.beginnings.kept(prompts) if few_programs else self.beginnings.of(prompts)
        known, seen = (0, 0) if before is None else (len(before.prompt.tokens), len(before.prompt.images))
        longest = max(len(prompt.tokens) for prompt in prompts) - known
        n = max(len(prompt.images) for prompt in prompts) - seen
        if few_programs and not seen and self.tokenizer.image_tag:
            n = max(n, 1)
        # Padding costs a CPU time. Another program costs an accelerator more.
        least = 128 if jax.default_backend() != 'cpu' else 8 if known else 32
        length = max(least, decode.power_of_two(longest)) if few_programs else -(-longest // least) * least
        images = decode.power_of_two(n) if few_programs and n else n
        return Shape(before, known, seen, length=length, images=images)

    def _read_beginning(self, prompt: Encoded) -> Beginning:
        """On a mesh, the rows of each device have their own beginning."""
        prompts = meshes.fill(self.mesh, [prompt])
        media = self._media(self.images.of(prompts), len(prompt.images))  # No padding: more images follow.
        tokens, valid = self._padded([prompt.tokens for prompt in prompts], -(-len(prompt.tokens) // 32) * 32)
        with rules.activations(self.mesh):
            _, text = _prefill(self.model, self.params, media, tokens, valid, 0, None)
        return Beginning(prompt, media, text)

    def _media(self, rows: Sequence[Sequence[Float[np.ndarray, 'r e']]], n: int) -> Media | None:
        """Keys and values of rows of n images; None for no images."""
        if not n:
            return None
        (tokens,), _ = meshes.in_rows(self.mesh, decode.in_rows(self.model, rows, n))
        with rules.activations(self.mesh):
            return decode.keys_values(self.model, self.params, Media(tokens, None))

    def _padded(self, rows: Sequence[list[int]], length: int) -> list[Array | np.ndarray]:
        """Tokens of that length, padded on the left, and which of them are not padding."""
        tokens = np.full((len(rows), length), self.tokenizer.pad, np.int32)
        valid = np.zeros(tokens.shape, bool)
        for row, ids in enumerate(rows):
            tokens[row, length - len(ids) :], valid[row, length - len(ids) :] = ids, True
        return meshes.in_rows(self.mesh, tokens, valid)[0]


_prefill = jax.jit(decode.prefill, static_argnums=(0, 5))
