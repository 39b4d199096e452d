"""How a model reads prompts: each image once, and once what several prompts begin with."""

import concurrent.futures
import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
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

FRAMES = 4  # That the trunk takes at a time, if others wait for the device.
CPU_PIECE, PIECE = 64, 512  # Tokens of a long prompt that are read at a time.


class Shape(NamedTuple):
    """In which shape prompts are read."""

    before: Beginning | None  # What is not read again.
    known: int  # The number of its tokens.
    seen: int  # The number of its images.
    length: int  # The number of tokens of each piece after it.
    pieces: int  # The number of pieces for which there is room.
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

    def compile_for(self, image: Any) -> None:
        """Compiles what new images of this one's kind need, however many come at a time."""
        frames = as_frames(image, self.format)
        with rules.activations(self.mesh):
            for number in range(FRAMES.bit_length()):
                decode.resample(self.model, self.params, [frames] * 2**number)

    @functools.cached_property
    def beginnings(self) -> Beginnings:
        """The beginnings of prompts that were read last."""
        return Beginnings(self._read_beginning, self.tokenizer)

    def read(
        self, prompts: Sequence[Encoded], few_programs: bool = False, between: Callable[[], None] = lambda: None
    ) -> decode.Prompts:
        """Reads prompts, after their beginning if they share one: their media, their text, and the logits after each.

        Args:
          few_programs: as for `shape`.
          between: called between two pieces of a long prompt, and between some of its images and the next.
        """
        before, known, seen, length, pieces, n = self.shape(prompts, few_programs)
        shown = self.images.of(prompts, FRAMES if few_programs else None, between)
        media = self._media([row[seen:] for row in shown], n)
        if before is not None and before.media is not None:
            media = before.media if media is None else before.media.beside(media)
        text = None if before is None else before.text
        if pieces > 1:
            logits, text = self._in_pieces(prompts[0], media, text, known, length, pieces, between)
        else:
            tokens, valid = self._padded([prompt.tokens[known:] for prompt in prompts], length)
            with rules.activations(self.mesh):
                logits, text = _prefill(self.model, self.params, media, tokens, valid, 0, text)
        return decode.Prompts(media, text, logits)

    def _in_pieces(
        self,
        prompt: Encoded,
        media: Media | None,
        text: decode.Text | None,
        known: int,
        length: int,
        pieces: int,
        between: Callable[[], None],
    ) -> tuple[Float[Array, 'b v'], decode.Text]:
        """Reads a long prompt piece by piece (chunked prefill: Agrawal et al. 2023, SARATHI)."""
        ends = self._ends(prompt, known, length)
        with rules.activations(self.mesh):
            read, logits = _with_room(self.model, 1, pieces * length, text), None
        for begin, end in itertools.pairwise([known, *ends]):
            tokens, valid = self._padded([prompt.tokens[begin:end]], length)
            own, parts = read._replace(parts=()), read.parts
            with rules.activations(self.mesh):
                logits, read = _extend(self.model, self.params, media, own, parts, tokens, valid)
            jax.block_until_ready(logits)  # What others ask of the device comes before the next piece.
            between()
        assert logits is not None
        return logits, read

    def _ends(self, prompt: Encoded, known: int, length: int) -> list[int]:
        """Where the pieces of a prompt end, each of at most `length` tokens. No tag is cut."""
        ends, tag = [], len(self.tokenizer.image_tag)
        while not ends or ends[-1] < len(prompt.tokens):
            end = min((ends[-1] if ends else known) + length, len(prompt.tokens))
            ends.append(next((begin for begin in prompt.begins if begin < end < begin + tag), end))
        return ends

    def shape(self, prompts: Sequence[Encoded], few_programs: bool = False) -> Shape:
        """In which shape prompts are read. Lengths are padded to few sizes, since each is another program to compile.

        Args:
          few_programs: reads after beginnings that are remembered, but does not look for others. Pads texts and the
            number of images to powers of two, and gives a text without images an empty place for one. Prompts of
            all lengths are then read by a few programs, which take up to twice as long. A long prompt, which is one
            alone, is read in pieces.
        """
        before = self.beginnings.kept(prompts) if few_programs else self.beginnings.of(prompts)
        known, seen = (0, 0) if before is None else (len(before.prompt.tokens), len(before.prompt.images))
        longest = max(len(prompt.tokens) for prompt in prompts) - known
        n = max(len(prompt.images) for prompt in prompts) - seen
        if few_programs and not seen and self.tokenizer.image_tag:
            n = max(n, 1)
        # Padding costs a CPU time. Another program costs an accelerator more.
        on_cpu, pieces = jax.default_backend() == 'cpu', 1
        least = 128 if not on_cpu else 8 if known else 32
        length = max(least, decode.power_of_two(longest)) if few_programs else -(-longest // least) * least
        piece = max(CPU_PIECE if on_cpu else PIECE, decode.power_of_two(len(self.tokenizer.image_tag)))
        if few_programs and length > piece and len(prompts) == 1:
            length, pieces = piece, decode.power_of_two(len(self._ends(prompts[0], known, piece)))
        images = decode.power_of_two(n) if few_programs and n else n
        return Shape(before, known, seen, length, pieces, images)

    def _read_beginning(self, prompt: Encoded) -> Beginning:
        """On a mesh, the rows of each device have their own beginning."""
        prompts = meshes.fill(self.mesh, [prompt])
        media = self._media(self.images.of(prompts, FRAMES), len(prompt.images))  # No padding: more images follow.
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


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def _extend(model, params, media, text: decode.Text, parts: tuple, tokens, valid):
    """The next piece of a prompt. The parts, which prompts share, are kept."""
    text = text._replace(parts=parts)
    logits, text = decode.extend(model, params, media, text, tokens, valid=valid, last_only=True)
    return logits[:, 0], text


_prefill = jax.jit(decode.prefill, static_argnums=(0, 5))
_with_room = jax.jit(decode.with_room, static_argnums=(0, 1, 2))
