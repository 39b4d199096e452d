"""One question of an evaluation: a prompt of examples, then a query that ends where the answer begins."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from flamingo_jax.inputs.sources.image_set import ImageSet, LabelledImage


@runtime_checkable
class ImageSource(Protocol):
    """The source of a prompt's images."""

    def frames(self, image: Any) -> Any:
        """The image as an item of a prompt: frames, features, a path or encoded bytes (inputs/prompts.py)."""

    def encoded(self, image: Any) -> bytes:
        """The encoded bytes of its first frame, for reports."""
        ...

    def key(self, image: Any) -> Hashable:
        """Identifies the image among the images of all sources."""

    def identity(self, image: Any) -> Any:
        """What the frames depend on, as JSON: if the file changes, this does too."""

    def words(self, image: Any) -> str:
        """What the image shows, in words that can stand in its place; '' if the source does not know."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """The images of one split, for queries or examples of a game: an `ImageSource`."""

    images: ImageSet
    read_rows: Callable[[], Mapping[int, np.ndarray]]  # Gives `rows`. They are computed once, and not before.
    split: str
    tile: int | None = None  # The frame that is shown of each image, as an image of its own; None is all.

    @property
    def rows(self) -> Mapping[int, np.ndarray]:
        """Index of an image -> its pooled frozen features, of length 1."""
        return self.read_rows()

    def frames(self, image: LabelledImage) -> np.ndarray:
        frames = self.images.frames(image)
        return frames if self.tile is None else frames[self.tile][None]

    def encoded(self, image: LabelledImage) -> bytes:
        return self.images.encoded(image, self.tile or 0)

    def key(self, image: LabelledImage) -> Hashable:
        return self.split, image.index

    def identity(self, image: LabelledImage) -> Any:
        identity = self.images.identity(image)
        return identity if self.tile is None else [*identity, self.tile]

    def words(self, image: LabelledImage) -> str:
        """The English name: `A tiger.`"""
        name = image.names.get('en', '')
        if not name or name.startswith(('A ', 'An ')):  # A stamp's name is its caption.
            return f'{name}.' if name else ''
        return f'{"An" if name[0] in "aeiouAEIOU" else "A"} {name}.'


@dataclasses.dataclass(frozen=True)
class Part:
    """An image, if any, and the text after it.

    id: of the example in its set; '' if it has none.
    label: the answer that an example shows, which its text has last; '' for other parts.
    goes_on: whether the next part belongs to it, so that no <EOC> stands between them.
    """

    image: Any | None
    of: ImageSource
    text: str
    id: str = dataclasses.field(default='', compare=False)
    label: str = dataclasses.field(default='', compare=False)
    goes_on: bool = False

    @property
    def key(self) -> Hashable | None:
        """The key of its image."""
        return None if self.image is None else self.of.key(self.image)


@dataclasses.dataclass(frozen=True)
class Episode:
    """One question to the model.

    Attributes:
      support: the examples, in the order in which they are shown; each but the query ends with <EOC>,
        unless its text goes on.
      query: the parts of the query; the last one ends where the answer begins.
      truth: the right answer, as a report shows it.
      candidates: the answers to rank; () if there are none.
      references: what the metric compares answers with; None is the truth alone.
      id: identifies the question in its set.
      clusters: what it asks about, an image each. Episodes that share one are not independent, and the interval allows
        for this. () is a cluster of its own.
      written: candidate -> its spellings, if it has others than itself; the likelihoods of all spellings are averaged.
      form: how a candidate is written after the prompt.
      ends: whether its likelihood includes that of the end of the chunk.
      between: text after the end of each example.
      begins: text before the first image, such as an instruction.
      types: what the set says of the kind of question, such as {'answer type': 'number'}.
    """

    support: tuple[Part, ...]
    query: tuple[Part, ...]
    truth: str
    candidates: tuple[str, ...] = ()
    references: Any = None
    id: str = ''
    clusters: tuple[str, ...] = ()
    written: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    form: str = ' {answer}'
    ends: bool = True
    between: str = ''
    begins: str = ''
    types: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.references is None:
            object.__setattr__(self, 'references', (self.truth,))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The whole prompt in reading order."""
        return self.support + self.query
