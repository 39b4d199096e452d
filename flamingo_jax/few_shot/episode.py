"""What an evaluation puts to a model: a prompt of examples, then a query that ends where the answer begins."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet


@runtime_checkable
class Source(Protocol):
    """Where the pictures of a prompt come from."""

    def frames(self, picture: Any) -> Any:
        """The picture as a prompt holds it: frames, features, a path or encoded bytes (inputs/prompts.py)."""

    def encoded(self, picture: Any) -> bytes:
        """The encoded bytes of its first frame, for reports."""

    def key(self, picture: Any) -> Hashable:
        """What tells it from all other pictures, whichever source shows it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """The pictures of one split that a game asks about, or takes its examples from: a `Source`."""

    pictures: PictureSet
    rows: Mapping[int, np.ndarray]  # Index of a picture -> its pooled frozen features, of length 1.
    split: str

    def frames(self, picture: Picture) -> np.ndarray:
        return self.pictures.frames(picture)

    def encoded(self, picture: Picture) -> bytes:
        return self.pictures.encoded(picture)

    def key(self, picture: Picture) -> Hashable:
        return self.split, picture.index


@dataclasses.dataclass(frozen=True)
class Part:
    """A picture, if any, and the text after it."""

    picture: Any | None
    of: Source
    text: str

    @property
    def key(self) -> Hashable | None:
        """Which picture it shows."""
        return None if self.picture is None else self.of.key(self.picture)


@dataclasses.dataclass(frozen=True)
class Episode:
    """One question put to the model.

    Attributes:
      support: the examples, in the order in which they are shown; each but the query ends with <EOC>.
      query: its last part ends where the answer begins.
      truth: the answer that a report shows.
      candidates: what the model may answer, where it chooses; () where it cannot.
      references: what the metric compares with; None is the truth alone.
      id: of the question in its set.
      group: episodes of one group share a picture: they are not independent, and the interval says so. '' is a group by itself.
      written: candidate -> how it may be written, where not as itself; the likelihoods of all its ways are averaged.
    """

    support: tuple[Part, ...]
    query: tuple[Part, ...]
    truth: str
    candidates: tuple[str, ...] = ()
    references: Any = None
    id: str = ''
    group: str = ''
    written: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.references is None:
            object.__setattr__(self, 'references', (self.truth,))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The whole prompt in reading order."""
        return self.support + self.query
