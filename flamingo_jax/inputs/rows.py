"""Documents -> rows of a batch, of fixed shape. The class of a row determines its loss (`training/objectives/`).

A document is a list of chunks; a chunk is at most one image and the text after it:

    <BOS>Cute pics of my pets!<EOC><image>My puppy sitting in grass.<EOC><image>My cat looking very dignified.<EOC><EOS>
         \\_______ chunk _______/   \\___________ chunk ___________/   \\________________ chunk ______________/
    phi: 0 0 0 0 0 0 0 0      0     1 1 1 1 1 1 1 1 1 1 1 1     1       2 2 2 2 2 2 2 2 2 2 2 2 2 2      2    2

The tokens of a tag have the new index; the <EOC> before a tag has the old one. With probability p_next, text is tied
to the next image instead: the index of everything but the tags rises by one, and text after the last image
gets 0.

A row holds one document, or several that are packed. The images of a packed row are counted through:

    <BOS><image>A cat.<EOC><EOS><BOS><image>A dog.<EOC><image>A bird.<EOC><EOS>
         phi: 1                      2                 3
    document: 1 (all tokens)    2 (all tokens)

Several lines of a packed row share its images, so that one line may have many and another none. Every array of tokens
then has a dimension of lines before that of tokens.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import Frames, ImageError
from flamingo_jax.inputs.layout import Layout
from flamingo_jax.inputs.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Chunk:
    """At most one image, then text in segments that each have a loss weight."""

    image: Callable[[], Frames] | None  # Called in the worker that needs it; may raise ImageError.
    texts: Sequence[str]
    weights: Sequence[float]
    says: str = ''  # What the image shows, in words that can replace it; the teacher of `Told` reads them.
    # Whether the marks of the language model (`<|im_start|>`) are tokens in the texts of an `Interleaved` or a `Told`
    # row. For texts that were written for it.
    marks: bool = False
    continues: bool = False  # Whether it is about the image before it, and left out with it.


@dataclasses.dataclass(frozen=True)
class RowFormat:
    """How large a row is, and what it holds of a longer document."""

    length: int  # Tokens; of a longer document, a window is taken (paper: 256 of a web page).
    images: int = 1  # Most images (paper: 5); 0 is text alone.
    targets: int = 0  # Most targets, the first of them; 0 sets no limit.
    from_start: bool = False  # Whether the window is the document's beginning, or a random one as in the paper.
    p_next: float = 0.0  # Probability that text is tied to the next image and not to the previous one (paper: 0.5).


@runtime_checkable
class Row(Protocol):
    """What every class of rows has. It is a NamedTuple of arrays, in the file of its objective (`Interleaved` is here).

    A batch has the same fields, with a dimension of rows before every shape.
    """

    used: np.ndarray  # int32 []: number of tokens before the padding.
    unreadable: np.ndarray  # int32 []: number of images that could not be read.
    images: Frames | None  # uint8 [images t height width 3]. A row has images or features, or neither.
    features: Frames | None  # float16 [images t s d_v], of the frozen trunk.

    has_logits: bool  # Whether its loss reads logits over the vocabulary.
    # Whether the rows of a batch are compared with one another: the loss takes all micro-batches at once, [m b ...].
    compares_rows: bool

    @classmethod
    def of(
        cls,
        chunks: Sequence[Chunk],
        tokenizer: Tokenizer,
        blank: Frames | None,
        rng: np.random.Generator,
        row: RowFormat,
    ) -> 'Row':
        """The row of a document; see `Interleaved.of`."""
        ...

    @staticmethod
    def lengths(length: int | float, images: int, tag: int) -> tuple[int | float, int | float]:
        """Tokens of a text whose states have a gradient, and of what the frozen language model reads beside it.

        Args:
          length, images: of the row, or of what is used of it.
          tag: tokens of an <image> tag.
        """
        ...

    def total_weight(self) -> Any:
        """What the summed loss of a batch is divided by."""

    def counts(self) -> dict[str, Any]:
        """What a batch holds, by the names in `COUNTS`."""
        ...

    def _replace(self, **fields: Any) -> Any:
        """The same with other values of some fields; every NamedTuple has it."""


Batch: TypeAlias = Row


class Interleaved(NamedTuple):
    """A sequence whose next tokens are learned (paper, section 2.4). A batch has a leading dimension of rows."""

    tokens: np.ndarray  # int32 [length], or [lines length].
    phi: np.ndarray  # int32 [length]: the image that each token sees, counted from 1; 0 is none.
    weights: np.ndarray  # float32 [length]: loss weight of each token as a target; 0 for tags and padding.
    used: np.ndarray  # int32 []: number of tokens before the padding.
    unreadable: np.ndarray  # int32 []: number of images that could not be read; their chunks are left out.
    images: Frames | None = None  # uint8 [images t height width 3]. A row has images or features, or neither.
    features: Frames | None = None  # float16 [images t s d_v], of the frozen trunk.
    at: np.ndarray | None = None  # int32 [targets]: the tokens before each target. None computes all logits.
    document: np.ndarray | None = None  # int32 [length]: which document of a packed row, from 1; 0 is padding.

    has_logits = True
    compares_rows = False

    @staticmethod
    def lengths(length: int | float, images: int, tag: int) -> tuple[int | float, int | float]:
        """See `Row.lengths`."""
        return length, 0

    def total_weight(self) -> Any:
        """What the summed loss of a batch is divided by. The first token of a line is not a target."""
        return self.weights[..., 1:].sum()

    def counts(self) -> dict[str, Any]:
        """What a batch holds, without its padding: tokens, images, documents, targets; and images not readable."""

        def of_row(x):
            return x.reshape(len(x), -1)

        documents = self.used > 0 if self.document is None else of_row(self.document).max(axis=1)
        # The last image's tag sees that image.
        return counted(self, images=of_row(self.phi).max(axis=1), documents=documents, targets=self.weights[..., 1:])

    def lines(self) -> 'Interleaved':
        """A batch whose lines are rows [b lines ...] -> [b * lines ...]. Those of a row still share its images."""

        def merged(x):
            return x if x is None or x.ndim < 3 else x.reshape(-1, *x.shape[2:])

        return self._replace(**{name: merged(getattr(self, name)) for name in OF_TOKENS})

    @classmethod
    def of(
        cls,
        chunks: Sequence[Chunk],
        tokenizer: Tokenizer,
        blank: Frames | None,
        rng: np.random.Generator,
        row: RowFormat,
    ) -> 'Interleaved':
        """The row of a document.

        Args:
          chunks: the document.
          tokenizer: of the model that will be trained.
          blank: an empty image, which fills up a row and fixes the shape and dtype of its images. None for text
            alone.
          rng: for the window and for p_next.
          row: its size, and what it holds of a longer document; the window ends before one image too many. (The paper
            keeps the text there and drops the image; its text would then be tied to the image before.)

        Raises:
          ValueError: an image's shape differs from that of `blank`.
        """
        chunks, unreadable = list(chunks), 0
        while True:  # Until every image in the window can be read. Images outside it are never decoded.
            layout, shown = _lay_out(chunks, tokenizer)
            over = max(0, len(layout.tokens) - row.length)
            start = int(rng.integers(over + 1)) if over and not row.from_start else 0
            begins = [(at - start, i) for at, i in zip(layout.begins, shown, strict=True) if at >= start]
            end = min(row.length, begins[row.images][0]) if len(begins) > row.images else row.length
            begins = [begin for begin in begins[: row.images] if begin[0] < end]
            images = [read_image(chunks[i].image, blank) for _, i in begins]
            if not any(image is None for image in images):
                break
            bad = {i for (_, i), image in zip(begins, images, strict=True) if image is None}
            unreadable += len(bad)
            kept, gone = [], False
            for i, chunk in enumerate(chunks):
                gone = i in bad or (gone and chunk.continues)
                kept += [] if gone else [chunk]
            chunks = kept
        tokens, weights = layout.tokens[start : start + end], _first(layout.weights[start : start + end], row.targets)

        tags = np.zeros(row.length, np.int32)
        tags[[position for position, _ in begins]] = 1
        phi = np.cumsum(tags, dtype=np.int32)
        if begins and rng.random() < row.p_next:
            is_tag = np.zeros(row.length + len(tokenizer.image_tag), bool)
            for position, _ in begins:
                is_tag[position : position + len(tokenizer.image_tag)] = True
            shifted = np.where(is_tag[: row.length], phi, phi + 1)
            phi = np.where(shifted > len(begins), 0, shifted).astype(np.int32)

        return cls(
            tokens=padded(tokens, row.length, tokenizer.pad, np.int32),
            phi=phi,
            weights=padded(weights, row.length, 0.0, np.float32),
            used=np.int32(len(tokens)),
            unreadable=np.int32(unreadable),
            **as_shown(images + [blank] * (row.images - len(images)), blank),
            at=_places(weights, row.targets) if row.targets else None,
        )

    @classmethod
    def packed(
        cls,
        documents: Iterable[Sequence[Chunk]],
        tokenizer: Tokenizer,
        blank: Frames | None,
        rng: np.random.Generator,
        row: RowFormat,
        window: tuple[int, int],
        lines: int = 1,
    ) -> 'Interleaved':
        """The row of several documents, one after the other. Each is what `of` makes of it, without the padding.

        A document that fits into a window goes in whole, into the first line that has room, or is passed over. Of a
        longer one, a window goes in, or as much of one as there is room for in the emptiest line. So a row is full as
        long as there are documents, and an answer is never cut off from its image for lack of room.

        Args:
          documents: candidates in their order; read until the row is full.
          row: its `length` and `targets` are those of each line, its `images` those of the row, for all of its lines.
          window: most tokens and images of each document.
          lines: 1 makes a row without a dimension of lines.

        Raises:
          ValueError: as for `of`.
        """
        tokens, phi, weights, document = ([[] for _ in range(lines)] for _ in range(4))
        images: list[Frames] = []
        number = unreadable = 0
        for chunks in documents:
            free = [row.length - len(line) for line in tokens]
            at = int(np.argmax(free))
            if not _fits(window, (free[at], row.images - len(images))) or lines > 1:
                layout, shown = _lay_out(chunks, tokenizer)
                size = len(layout.tokens), len(shown)
                if _fits(size, window):
                    room = (i for i in range(lines) if _fits(size, (free[i], row.images - len(images))))
                    at = next(room, -1)
                    if at < 0:
                        continue
            left = dict(length=min(window[0], free[at]), images=min(window[1], row.images - len(images)))
            part = cls.of(chunks, tokenizer, blank, rng, dataclasses.replace(row, targets=0, **left))
            unreadable += int(part.unreadable)
            if not part.weights[1:].any():  # Nothing to learn.
                continue
            number, used, seen = number + 1, int(part.used), int(part.phi.max())
            tokens[at] += part.tokens[:used].tolist()
            phi[at] += np.where(part.phi > 0, part.phi + len(images), 0)[:used].tolist()
            weights[at] += [0.0, *part.weights[1:used].tolist()]  # The first token is not a target.
            document[at] += [number] * used
            images += list((part.features if part.images is None else part.images)[:seen]) if seen else []
            if all(len(line) > row.length - 2 for line in tokens):  # No room for a target.
                break

        def of_lines(values, fill, dtype):
            stacked = np.stack([padded(line, row.length, fill, dtype) for line in values])
            return stacked[0] if lines == 1 else stacked

        weights = [_first(line, row.targets) for line in weights]
        at = [_places(line, row.targets) for line in weights] if row.targets else None
        return cls(
            tokens=of_lines(tokens, tokenizer.pad, np.int32),
            phi=of_lines(phi, 0, np.int32),
            weights=of_lines(weights, 0.0, np.float32),
            used=np.int32(sum(map(len, tokens))),
            unreadable=np.int32(unreadable),
            **as_shown(images + [blank] * (row.images - len(images)), blank),
            at=None if at is None else at[0] if lines == 1 else np.stack(at),
            document=of_lines(document, 0, np.int32),
        )


OF_TOKENS = ('tokens', 'phi', 'weights', 'at', 'document')  # Fields that have a dimension of lines, if there are any.


def first_with_text(
    chunks: Sequence[Chunk], blank: Frames, images: int, row: str
) -> tuple[Chunk | None, Frames | None]:
    """The first chunk with an image and a text, and the image, None if it cannot be read.

    ValueError if the row, which has one image, is to have another number of `images`.
    """
    if images != 1:
        raise UserError(f'{row} row shows one image, but the data set has images={images}. Set its images to 1.')
    chunk = next((chunk for chunk in chunks if chunk.image is not None and any(chunk.texts)), None)
    return chunk, read_image(chunk.image, blank) if chunk else None


def encode_paired(text: str, tokenizer: Tokenizer, length: int) -> tuple[np.ndarray, np.int32]:
    """The tokens of a text tower, padded to `length`, and how many are not padding; a longer text is cut."""
    layout = Layout(tokenizer)
    layout.text(text, marks=False)
    layout.end()
    tokens = layout.tokens[:length]
    return padded(tokens, length, tokenizer.pad, np.int32), np.int32(len(tokens))


COUNTS = ('tokens', 'images', 'documents', 'targets', 'unreadable')


def counted(batch: 'Batch', images: Any, documents: Any, targets: Any) -> dict[str, Any]:
    """What `Row.counts` gives. Each is an array of rows or of tokens, of which those above 0 count or are summed."""
    each = batch.used, images, documents, targets > 0, batch.unreadable
    return {name: x.sum() * 1.0 for name, x in zip(COUNTS, each, strict=True)}


def _lay_out(chunks: Sequence[Chunk], tokenizer: Tokenizer) -> tuple[Layout, list[int]]:
    """A whole document, and the number of the chunk of each image in it."""
    layout, shown = Layout(tokenizer), []
    for i, chunk in enumerate(chunks):
        if chunk.image is not None:
            shown.append(i)
            layout.image()
        for text, weight in zip(chunk.texts, chunk.weights, strict=True):
            layout.text(text, float(weight), marks=chunk.marks)
        layout.end_chunk()
    layout.end()
    return layout, shown


def _fits(size: tuple[int, int], room: tuple[int, int]) -> bool:
    """Whether so many tokens and images have room."""
    return size[0] <= room[0] and size[1] <= room[1]


def read_image(image: Callable[[], Frames], blank: Frames) -> Frames | None:
    """An image; None if it is none, or damaged. What the disk or the network says ends the run."""
    try:
        frames = image()
    except ImageError:
        return None
    if frames.shape != blank.shape:
        raise UserError(
            f'An image has the shape {frames.shape} (frames, then pixels or features), but the data set is read as '
            f'{blank.shape}. Set `frames` and `image_size` of the data set to match.'
        )
    return frames


def as_shown(images: Sequence[Frames], blank: Frames | None) -> dict[str, Frames]:
    """The images of a row as `images` if they are pixels, which are bytes, and as `features` if not."""
    return {'images' if blank.dtype == np.uint8 else 'features': np.stack(images)} if images else {}


def _first(weights: Sequence[float], targets: int) -> np.ndarray:
    """The weights without those after the first `targets`, so that a rare long row does not end a run; 0 keeps all."""
    kept = np.array(weights, np.float32)
    if targets:
        kept[1 + np.flatnonzero(kept[1:])[targets:]] = 0  # The first token is not a target.
    return kept


def _places(weights: np.ndarray, targets: int) -> np.ndarray:
    """The positions before those with a weight, padded with -1 to `targets`."""
    return padded(np.flatnonzero(weights[1:]), targets, -1, np.int32)


def padded(values: Sequence[Any] | np.ndarray, length: int, fill: int | float, dtype: Any) -> np.ndarray:
    """Values, and after them so many of `fill` that there are `length`."""
    out = np.full(length, fill, dtype)
    out[: len(values)] = values
    return out
