"""The interface of a data set. A new kind of data set is one file with one subclass.

A config names a kind by its class, `dataset(Documents, path=...)` (`training/config.py`). No other code names it.
"""

import dataclasses
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import Frames, ImageFormat
from flamingo_jax.inputs.rows import Chunk, Interleaved, Row, RowFormat
from flamingo_jax.inputs.tokenizer import Tokenizer

ENDLESS = 2**40  # The length of a source that draws a new document each time.


@runtime_checkable
class Opened(Protocol):
    """An open source: documents by number."""

    def __len__(self) -> int:
        """The number of documents. ENDLESS is neither shuffled nor repeated."""
        ...

    def document(self, index: int, rng: np.random.Generator) -> list[Chunk]:
        """Document `index`, or one drawn with `rng` alone. An image is a function, which reads it when called."""
        ...


@dataclasses.dataclass(frozen=True)
class Source:
    """One data set of a mixture: its place, how its documents become rows, and how training uses it."""

    path: str = ''  # Where the data set is: a folder or a file, according to the kind.
    split: str = 'train'
    validation_split: str = ''  # Held out: its loss is computed every `config.validate_every` steps; '' is none.
    features: str = ''  # Folder of features computed once (`python -m flamingo_jax.features`); '' reads pixels.
    row: type = Interleaved  # What a document becomes, a class as `rows.Row` says. It determines the loss.
    length: int = 256  # Tokens per row, or per line of a row.
    images: int = 5  # Images per row; 0 is text alone.
    frames: int = 1  # Frames per image; more than 1 is video.
    targets: int = 0  # Most targets in a row; only their logits are computed. 0 computes the logits of all tokens.
    # Documents that a row may hold; more than 1 packs them, each with its own images and its own attention. `length`
    # and `images` are then those of the whole row, and `window` the most tokens and images of each document.
    documents: int = 1
    window: tuple[int, int] = (256, 5)  # Paper: 256 tokens and 5 images of a web page.
    # Lines of a packed row, each of `length` tokens. They share the row's `images`: a budget for the images of
    # several lines is filled better than as many places in every line.
    lines: int = 1
    # Of a document that is longer than its window: True takes the beginning, where a pair, a video or a dialogue has
    # its image; False a random part (paper: of web pages).
    from_start: bool = False
    p_next: float = 0.0  # Probability that text is tied to the next image (paper: 0.5 on web pages).
    batch_size: int = 32  # Rows per step, over all devices.
    micro_batches: int = 0  # Parts into which a step cuts the batch; 0 is `config.micro_batches`.
    loss_weight: float = 1.0  # lambda_m, the weight of the mean loss over its targets.
    workers: int = 0  # Processes that decode images and build rows; 0 uses threads.

    def open(self, image_format: ImageFormat) -> Opened:
        """Opens the data set. Its images will be read in this format.

        Raises:
          FileNotFoundError, ValueError: the data set is missing or does not fit the model; the message says what to do.
        """
        raise NotImplementedError

    def check(self, opened: Opened, tokenizer: Tokenizer) -> None:
        """ValueError if nothing can be learned from the rows of these documents. Some are drawn and read."""

    def unlearnt(self, documents: Iterable[list[Chunk]], tokenizer: Tokenizer) -> int:
        """How many of some documents leave nothing to learn in a row of their own. No image is read."""
        blank = np.zeros((1, 1), np.uint8) if self.images else None
        count = 0
        for chunks in documents:
            unread = [dataclasses.replace(chunk, image=chunk.image and (lambda: blank)) for chunk in chunks]
            row = self.make_row([unread], tokenizer, blank, np.random.default_rng(0))
            count += not row.total_weight()
        return count

    def blank(self, image_format: ImageFormat) -> Frames | None:
        """An empty image, with the shape and dtype of every other image; None for text alone."""
        return image_format.blank(self.frames, bool(self.features)) if self.images else None

    def make_row(
        self, documents: Iterable[list[Chunk]], tokenizer: Tokenizer, blank: Frames | None, rng: np.random.Generator
    ) -> Row:
        """The row of one document, or of several that are packed.

        Raises:
          ValueError: the row's class cannot hold several documents, or as for `Interleaved.of`.
        """
        row = RowFormat(self.length, self.images, self.targets, self.from_start, self.p_next)
        if self.lines > 1 and self.documents < 2:
            raise UserError(f'Only packed rows have {self.lines} lines. Set `documents` of the data set to 2 or more.')
        if self.documents == 1:
            (chunks,) = documents
            return self.row.of(chunks, tokenizer, blank, rng, row)
        if self.documents < 1 or self.lines < 1 or min(self.window) < 0:
            raise UserError(
                f'A row cannot hold {self.documents} documents of {self.window[0]} tokens and {self.window[1]} '
                'images. Set `documents` to 1 or more, and `window` to two numbers.'
            )
        if not hasattr(self.row, 'packed'):
            raise UserError(
                f'Only rows of the class Interleaved hold several documents, not {self.row.__name__}. Set `documents` '
                'of the data set to 1.'
            )
        return self.row.packed(documents, tokenizer, blank, rng, row, tuple(self.window), self.lines)

    def empty_row(self, tokenizer: Tokenizer, image_format: ImageFormat) -> Row:
        """The row of an empty document, with the shapes and dtypes of every other row. The data set may be missing."""
        return self.make_row([[]], tokenizer, self.blank(image_format), np.random.default_rng(0))
