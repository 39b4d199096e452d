"""What every data set of a run has, and what it must give. A new kind of data set is one file with one subclass.

A config names a kind by its class, `dataset(Documents, path=...)` (`training/config.py`): nothing else has to know of it.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np

from flamingo_jax.inputs.images import Frames, PictureFormat
from flamingo_jax.inputs.rows import Chunk, Interleaved, Row
from flamingo_jax.inputs.tokenizer import Tokenizer

ENDLESS = 2**40  # Documents of a source that draws a new one each time.


@runtime_checkable
class Opened(Protocol):
    """A source that is open: documents by number."""

    def __len__(self) -> int:
        """How many documents there are; ENDLESS is not shuffled and not repeated."""

    def document(self, index: int, rng: np.random.Generator) -> list[Chunk]:
        """Document `index`, or one drawn by `rng` alone. Pictures are read later, by whoever calls them."""


@dataclasses.dataclass(frozen=True)
class Source:
    """One data set of a mixture: where it is, how its documents become rows, and how it is trained on."""

    path: str = ''  # Where the data set is: the kinds say what may stand there.
    split: str = 'train'
    validation_split: str = ''  # Held out: its loss is taken every `config.validate_every` steps; '' is none.
    features: str = ''  # Folder of features computed once (`python -m flamingo_jax.features`); '' reads pixels.
    row: type[Row] = (
        Interleaved  # The row that a document becomes, which says what is learned of it (`inputs/rows.py`).
    )
    length: int = 256  # Tokens a row.
    images: int = 5  # Pictures a row; 0 = text alone.
    frames: int = 1  # Frames a picture; more is video.
    p_next: float = 0.0  # Probability that text is tied to the next picture (paper: 0.5 on web pages).
    batch_size: int = 32  # Rows a step, over all devices.
    loss_weight: float = 1.0  # lambda_m.
    workers: int = 0  # Processes that decode and build; 0 does it in threads.

    def open(self, pictures: PictureFormat) -> Opened:
        """Opens the data set, its pictures to be read in this format.

        Raises:
          FileNotFoundError, ValueError: it is not there, or does not fit; the message says what to do.
        """
        raise NotImplementedError

    def blank(self, pictures: PictureFormat) -> Frames | None:
        """An empty picture, with the shape and dtype of every other; None for text alone."""
        return pictures.blank(self.frames, bool(self.features)) if self.images else None

    def make_row(
        self, chunks: list[Chunk], tokenizer: Tokenizer, blank: Frames | None, rng: np.random.Generator
    ) -> Row:
        """The row of a document."""
        return self.row.of(chunks, tokenizer, blank, rng, length=self.length, images=self.images, p_next=self.p_next)

    def empty_row(self, tokenizer: Tokenizer, pictures: PictureFormat) -> Row:
        """The row of an empty document: every other has its shapes and dtypes. The data set need not be there."""
        return self.make_row([], tokenizer, self.blank(pictures), np.random.default_rng(0))
