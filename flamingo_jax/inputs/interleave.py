"""Interleaved pictures and text -> one training sequence of fixed shape (paper section 2.3, appendix A.3).

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
from typing import Any

import numpy as np

from flamingo_jax.inputs.images import PictureError
from flamingo_jax.inputs.tokenizer import Tokenizer

Frames = np.ndarray  # uint8 [t height width 3], or the trunk's features [t s d_v].


@dataclasses.dataclass(frozen=True)
class Chunk:
    """At most one picture, then text in segments that each have a loss weight."""

    picture: Callable[[], Frames] | None  # Called in the worker that needs it; may raise PictureError.
    texts: Sequence[str]
    weights: Sequence[float]


def interleave(
    chunks: Sequence[Chunk],
    tokenizer: Tokenizer,
    length: int,
    images: int,
    blank: Frames | None,
    rng: np.random.Generator,
    p_next: float = 0.0,
) -> dict[str, Any]:
    """One training sequence.

    Args:
      chunks: the document.
      tokenizer: of the model that will be trained.
      length: tokens in the sequence; a longer document gives a random window of it (paper: 256 of a web page).
      images: pictures in the sequence; the window ends before one more (paper: 5). 0 = text alone.
      blank: what stands where a sequence has fewer pictures; fixes shape and dtype of all. None without pictures.
      rng: for the window and for p_next.
      p_next: probability that text is tied to the next picture rather than to the previous one (paper: 0.5).

    Returns:
      tokens int32 [length]; phi int32 [length]; weights float32 [length], the loss weight of each token as a target
      (0 for tags and padding); length, how many of the tokens are not padding; images [images, *blank.shape] if
      images > 0; unreadable, how many pictures could not be read: such a chunk is left out.
    """
    chunks, unreadable = list(chunks), 0
    while True:  # Until every picture of the window can be read. Those outside are never decoded.
        tokens, weights, begins = _lay_out(chunks, tokenizer)
        start = int(rng.integers(0, len(tokens) - length + 1)) if len(tokens) > length else 0
        begins = [(position - start, i) for position, i in begins if position >= start]
        end = min(length, begins[images][0]) if len(begins) > images else length
        begins = [begin for begin in begins[:images] if begin[0] < end]
        pictures = [_read(chunks[i].picture, blank) for _, i in begins]
        if not any(picture is None for picture in pictures):
            break
        bad = {i for (_, i), picture in zip(begins, pictures, strict=True) if picture is None}
        unreadable += len(bad)
        chunks = [chunk for i, chunk in enumerate(chunks) if i not in bad]
    tokens, weights = tokens[start : start + end], weights[start : start + end]

    tags = np.zeros(length, np.int32)
    tags[[position for position, _ in begins]] = 1
    phi = np.cumsum(tags, dtype=np.int32)
    if begins and rng.random() < p_next:
        is_tag = np.zeros(length + len(tokenizer.image_tag), bool)
        for position, _ in begins:
            is_tag[position : position + len(tokenizer.image_tag)] = True
        shifted = np.where(is_tag[:length], phi, phi + 1)
        phi = np.where(shifted > len(begins), 0, shifted).astype(np.int32)

    out = dict(
        tokens=_pad(tokens, length, tokenizer.pad, np.int32),
        weights=_pad(weights, length, 0.0, np.float32),
        phi=phi,
        length=np.int32(len(tokens)),
        unreadable=np.int32(unreadable),
    )
    if images:
        out['images'] = np.stack(pictures + [blank] * (images - len(pictures)))
    return out


def pair(chunks: Sequence[Chunk], tokenizer: Tokenizer, length: int, blank: Frames) -> dict[str, Any]:
    """A document's first picture that has a text, by itself, and that text: what `training/losses/` aligns.

    Args:
      chunks, tokenizer, blank: as of `interleave`.
      length: tokens of the text, <BOS> included; a longer text is cut.

    Returns:
      tokens int32 [s]: <BOS>, the tag, what follows it; phi int32 [s]; weights float32 [s]: 1 at the end, or 0 if there is no
      picture that can be read; images [1, *blank.shape]; unreadable, 1 or 0; text int32 [length]: <BOS> and the text; ends, the
      place of its last token.
    """
    chunk = next((chunk for chunk in chunks if chunk.picture is not None and any(chunk.texts)), None)
    picture = _read(chunk.picture, blank) if chunk else None
    texts = chunk.texts if chunk else ()
    tokens, _, _ = _lay_out([Chunk(lambda: blank, (), ())], tokenizer)
    text, _, _ = _lay_out([Chunk(None, texts, (0.0,) * len(texts))], tokenizer)
    ends = 1 if tokenizer.eoc is None else 2  # <EOC>, <EOS>: nothing is to be said of them.
    tokens, text = tokens[: len(tokens) - ends + 1], text[:-ends][:length]
    return dict(
        tokens=np.array(tokens, np.int32),
        weights=np.array([0.0] * (len(tokens) - 1) + [picture is not None], np.float32),
        phi=(np.arange(len(tokens)) >= len(tokenizer.begin)).astype(np.int32),
        images=(blank if picture is None else picture)[None],
        unreadable=np.int32(chunk is not None and picture is None),
        text=_pad(text, length, tokenizer.pad, np.int32),
        ends=np.int32(len(text) - 1),
    )


def _lay_out(chunks: Sequence[Chunk], tokenizer: Tokenizer) -> tuple[list[int], list[float], list[tuple[int, int]]]:
    """Tokens and weights of a whole document, and the position of each tag with the number of its chunk."""
    tokens, weights, begins = list(tokenizer.begin), [0.0] * len(tokenizer.begin), []
    continues = False  # Whether the next text goes on with one before it.
    for i, chunk in enumerate(chunks):
        if chunk.picture is not None:
            around = [] if tokenizer.around is None else [tokenizer.around]
            tokens += [] if tokens[-1:] == around else around
            begins.append((len(tokens), i))
            tokens += [*tokenizer.image_tag, *around]
            weights += [0.0] * (len(tokens) - len(weights))
            continues = tokenizer.prefix_once
        for text, weight in zip(chunk.texts, chunk.weights, strict=True):
            ids = tokenizer.encode(text, continues)
            continues = continues or bool(ids)
            tokens += ids
            weights += [float(weight)] * len(ids)
        if tokenizer.eoc is not None:
            tokens.append(tokenizer.eoc)
            continues = tokenizer.prefix_once
            weights.append(float(chunk.weights[-1]) if len(chunk.weights) else 0.0)
    tokens.append(tokenizer.eos)
    weights.append(weights[-1])
    return tokens, weights, begins


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


def _pad(values, length, fill, dtype):
    out = np.full(length, fill, dtype)
    out[: len(values)] = values
    return out
