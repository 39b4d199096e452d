"""One question of an evaluation: a prompt of examples, then a query that ends where the answer begins."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet


@runtime_checkable
class PictureSource(Protocol):
    """The source of a prompt's pictures."""

    def frames(self, picture: Any) -> Any:
        """The picture as an item of a prompt: frames, features, a path or encoded bytes (inputs/prompts.py)."""

    def encoded(self, picture: Any) -> bytes:
        """The encoded bytes of its first frame, for reports."""
        ...

    def key(self, picture: Any) -> Hashable:
        """Identifies the picture among the pictures of all sources."""

    def identity(self, picture: Any) -> Any:
        """What the frames depend on, as JSON: if the file changes, this does too."""

    def words(self, picture: Any) -> str:
        """What the picture shows, in words that can stand in its place; '' if the source does not know."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """The pictures of one split, for queries or examples of a game: a `PictureSource`."""

    pictures: PictureSet
    read_rows: Callable[[], Mapping[int, np.ndarray]]  # Gives `rows`. They are computed once, and not before.
    split: str
    tile: int | None = None  # The frame that is shown of each picture, as a picture of its own; None is all.

    @property
    def rows(self) -> Mapping[int, np.ndarray]:
        """Index of a picture -> its pooled frozen features, of length 1."""
        return self.read_rows()

    def frames(self, picture: Picture) -> np.ndarray:
        frames = self.pictures.frames(picture)
        return frames if self.tile is None else frames[self.tile][None]

    def encoded(self, picture: Picture) -> bytes:
        return self.pictures.encoded(picture, self.tile or 0)

    def key(self, picture: Picture) -> Hashable:
        return self.split, picture.index

    def identity(self, picture: Picture) -> Any:
        found = self.pictures.identity(picture)
        return found if self.tile is None else [*found, self.tile]

    def words(self, picture: Picture) -> str:
        """The English name: `A tiger.`"""
        name = picture.names.get('en', '')
        if not name or name.startswith(('A ', 'An ')):  # A stamp's name is its caption.
            return f'{name}.' if name else ''
        return f'{"An" if name[0] in "aeiouAEIOU" else "A"} {name}.'


@dataclasses.dataclass(frozen=True)
class Part:
    """A picture, if any, and the text after it.

    id: of the example in its set; '' if it has none.
    """

    picture: Any | None
    of: PictureSource
    text: str
    id: str = dataclasses.field(default='', compare=False)

    @property
    def key(self) -> Hashable | None:
        """The key of its picture."""
        return None if self.picture is None else self.of.key(self.picture)


@dataclasses.dataclass(frozen=True)
class Episode:
    """One question to the model.

    Attributes:
      support: the examples, in the order in which they are shown; each but the query ends with <EOC>.
      query: the parts of the query; the last one ends where the answer begins.
      truth: the right answer, as a report shows it.
      candidates: the answers to rank; () if there are none.
      references: what the metric compares answers with; None is the truth alone.
      id: identifies the question in its set.
      clusters: what it asks about, a picture each. Episodes that share one are not independent, and the interval allows
        for this. () is a cluster of its own.
      written: candidate -> its spellings, if it has others than itself; the likelihoods of all spellings are averaged.
      form: how a candidate is written after the prompt.
      ends: whether its likelihood includes that of the end of the chunk.
      between: text after the end of each example.
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
    types: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.references is None:
            object.__setattr__(self, 'references', (self.truth,))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The whole prompt in reading order."""
        return self.support + self.query
