"""Documents -> rows of a batch, of fixed shape. The class of a row says which loss it is for (`training/losses`).

A document is a list of chunks; a chunk is at most one picture and the text after it:

    <BOS>Cute pics of my pets!<EOC><image>My puppy sitting in the grass.<EOC><image> My cat looking very dignified.<EOC><EOS>
         \\_______ chunk _______/   \\____________ chunk ______________/   \\_________________ chunk ______________/
    phi: 0 0 0 0 0 0 0 0      0     1 1 1 1 1 1 1 1 1 1 1 1 1     1       2 2 2 2 2 2 2 2 2 2 2 2 2 2 2      2    2

The tag's own tokens already have the new index, the <EOC> before a tag still has the old one. With probability p_next
text is tied to the next picture instead, which shifts the index of everything but the tags by one; text that then has no
picture gets 0.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from flamingo_jax.inputs.images import Frames, PictureError
from flamingo_jax.inputs.layout import Layout
from flamingo_jax.inputs.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Chunk:
    """At most one picture, then text in segments that each have a loss weight."""

    picture: Callable[[], Frames] | None  # Called in the worker that needs it; may raise PictureError.
    texts: Sequence[str]
    weights: Sequence[float]


class Interleaved(NamedTuple):
    """A sequence whose next tokens are learned (paper, section 2.4). A batch is the same with rows before every shape."""

    tokens: np.ndarray  # int32 [length].
    phi: np.ndarray  # int32 [length]: the picture that each token sees, from 1; 0 is none.
    weights: np.ndarray  # float32 [length]: of each token as a target; 0 for tags and padding.
    used: np.ndarray  # int32 []: the tokens that are not padding, which come first.
    unreadable: np.ndarray  # int32 []: pictures that could not be read. Their chunks are left out.
    images: Frames | None = None  # uint8 [images t height width 3]. Of these two a row has one, or none: text alone.
    features: Frames | None = None  # float16 [images t s d_v], of the frozen trunk.

    def total_weight(self):
        """What the summed loss of a batch is divided by: the first token is no target."""
        return self.weights[:, 1:].sum()

    @classmethod
    def of(
        cls,
        chunks: Sequence[Chunk],
        tokenizer: Tokenizer,
        blank: Frames | None,
        rng: np.random.Generator,
        *,
        length: int,
        images: int,
        p_next: float = 0.0,
    ) -> 'Interleaved':
        """The row of a document.

        Args:
          chunks: the document.
          tokenizer: of the model that will be trained.
          blank: what stands where a row has fewer pictures; fixes shape and dtype of all. None without pictures.
          rng: for the window and for p_next.
          length: tokens in the row; a longer document gives a random window of it (paper: 256 of a web page).
          images: pictures in the row; the window ends before one more (paper: 5). 0 = text alone.
          p_next: probability that text is tied to the next picture rather than to the previous one (paper: 0.5).

        Raises:
          ValueError: a picture of another shape than `blank`.
        """
        chunks, unreadable = list(chunks), 0
        while True:  # Until every picture of the window can be read. Those outside are never decoded.
            layout, shown = _lay_out(chunks, tokenizer)
            start = int(rng.integers(0, len(layout.tokens) - length + 1)) if len(layout.tokens) > length else 0
            begins = [(at - start, i) for at, i in zip(layout.begins, shown, strict=True) if at >= start]
            end = min(length, begins[images][0]) if len(begins) > images else length
            begins = [begin for begin in begins[:images] if begin[0] < end]
            pictures = [_read(chunks[i].picture, blank) for _, i in begins]
            if not any(picture is None for picture in pictures):
                break
            bad = {i for (_, i), picture in zip(begins, pictures, strict=True) if picture is None}
            unreadable += len(bad)
            chunks = [chunk for i, chunk in enumerate(chunks) if i not in bad]
        tokens, weights = layout.tokens[start : start + end], layout.weights[start : start + end]

        tags = np.zeros(length, np.int32)
        tags[[position for position, _ in begins]] = 1
        phi = np.cumsum(tags, dtype=np.int32)
        if begins and rng.random() < p_next:
            is_tag = np.zeros(length + len(tokenizer.image_tag), bool)
            for position, _ in begins:
                is_tag[position : position + len(tokenizer.image_tag)] = True
            shifted = np.where(is_tag[:length], phi, phi + 1)
            phi = np.where(shifted > len(begins), 0, shifted).astype(np.int32)

        return cls(
            tokens=_pad(tokens, length, tokenizer.pad, np.int32),
            phi=phi,
            weights=_pad(weights, length, 0.0, np.float32),
            used=np.int32(len(tokens)),
            unreadable=np.int32(unreadable),
            **_shown(pictures + [blank] * (images - len(pictures)), blank),
        )


class Aligned(NamedTuple):
    """A picture by itself, and its text by itself: the one is to mean what the other does (`training/losses/alignment.py`)."""

    tokens: np.ndarray  # int32 [s]: what stands before a text, the tag, and what follows it.
    phi: np.ndarray  # int32 [s].
    weight: np.ndarray  # float32 []: 1, or 0 if there is no picture that can be read.
    text: np.ndarray  # int32 [length]: <BOS> and the text.
    used: np.ndarray  # int32 []: the tokens of the text that are not padding.
    unreadable: np.ndarray  # int32 []: 1 or 0.
    images: Frames | None = None  # [1 t height width 3] or
    features: Frames | None = None  # [1 t s d_v].

    def total_weight(self):
        """What the summed loss of a batch is divided by."""
        return self.weight.sum()

    @classmethod
    def of(
        cls,
        chunks: Sequence[Chunk],
        tokenizer: Tokenizer,
        blank: Frames,
        rng: np.random.Generator,
        *,
        length: int,
        images: int = 1,
        p_next: float = 0.0,
    ) -> 'Aligned':
        """The row of a document's first picture that has a text; arguments as of `Interleaved.of`.

        length: tokens of the text, <BOS> included; a longer text is cut.

        Raises:
          ValueError: more than one picture a row is asked for.
        """
        del rng, p_next
        if images != 1:
            raise ValueError(f'An aligned row shows one picture: set images of the data set to 1, not {images}.')
        chunk = next((chunk for chunk in chunks if chunk.picture is not None and any(chunk.texts)), None)
        picture = _read(chunk.picture, blank) if chunk else None
        shown, text = Layout(tokenizer), Layout(tokenizer)
        shown.picture()
        shown.end_chunk()
        if tokenizer.eoc is None:  # The state at the tag is read where the next token is foretold.
            shown.end()
        for segment in chunk.texts if chunk else ():
            text.text(segment, marks=False)
        text = text.tokens[:length]
        return cls(
            tokens=np.array(shown.tokens, np.int32),
            phi=(np.arange(len(shown.tokens)) >= shown.begins[0]).astype(np.int32),
            weight=np.float32(picture is not None),
            text=_pad(text, length, tokenizer.pad, np.int32),
            used=np.int32(len(text)),
            unreadable=np.int32(chunk is not None and picture is None),
            **_shown([blank if picture is None else picture], blank),
        )


Row = Interleaved | Aligned
Batch = Row  # The same fields, with rows before every shape.


def _lay_out(chunks: Sequence[Chunk], tokenizer: Tokenizer) -> tuple[Layout, list[int]]:
    """A whole document, and the number of the chunk of each picture in it."""
    layout, shown = Layout(tokenizer), []
    for i, chunk in enumerate(chunks):
        if chunk.picture is not None:
            shown.append(i)
            layout.picture()
        for text, weight in zip(chunk.texts, chunk.weights, strict=True):
            layout.text(text, float(weight), marks=False)
        layout.end_chunk()
    layout.end()
    return layout, shown


def _read(picture: Callable[[], Frames], blank: Frames) -> Frames | None:
    """A picture; None if it cannot be read."""
    try:
        frames = picture()
    except PictureError:
        return None
    if frames.shape != blank.shape:
        raise ValueError(
            f'A picture has shape {frames.shape} where the data set is read as {blank.shape} '
            '(frames, then pixels or features): set `frames` and `image_size` of the data set to its own.'
        )
    return frames


def _shown(pictures: Sequence[Frames], blank: Frames | None) -> dict[str, Frames]:
    """The pictures of a row under the name that says what they are: pixels are bytes."""
    return {'images' if blank.dtype == np.uint8 else 'features': np.stack(pictures)} if pictures else {}


def _pad(values, length, fill, dtype):
    out = np.full(length, fill, dtype)
    out[: len(values)] = values
    return out
