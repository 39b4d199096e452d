"""A prepared picture set (`data/picture_dictionary`): pictures of concepts, with their names in many languages.

The descriptions of the pictures are read once and kept; the pictures stay encoded on disk until they are needed. If the
frozen trunk's features were computed before (`python -m flamingo_jax.features`), they are read instead of pixels.
"""

import collections
import copy
import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs import augment
from flamingo_jax.inputs.images import Frames, PictureFormat, to_frames
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.inputs.sources.features import Features


@dataclasses.dataclass(frozen=True)
class Picture:
    """What is known of one picture (or clip); `index` is its place in the split."""

    index: int
    concept: str
    style: str
    category: str
    subcategory: str
    names: dict[str, str]  # Language -> name.
    heldout_languages: frozenset[str]  # Languages whose name for this concept training never shows.
    questions: tuple[tuple[str, str], ...] = ()  # Questions about it, with their answers.
    backward: bool = False  # Whether a clip plays backward from its first frame.


class PictureSet:
    """Random access to the pictures of one split.

    Attributes:
      pictures: the pictures of the chosen styles.
      by_concept: concept -> its pictures.
      blank: an empty picture, with the shape and dtype of what `frames` returns.
      views: number of views of each picture.
    """

    def __init__(
        self,
        path: str,
        split: str,
        pictures: PictureFormat,
        *,
        styles: Sequence[str] = (),
        things_of: Sequence[str] = (),
        features: str = '',
        frames: int = 1,
        stills: bool = False,
        views: int = 1,
        flip: bool = True,
    ):
        """Opens a split.

        Args:
          path, split: the prepared data set.
          pictures: how pictures are read.
          styles: keep only pictures of these; () keeps all.
          things_of: keep only pictures of concepts that these styles show; () keeps all.
          features: folder written by the features command; '' reads pixels.
          frames: keep only pictures with this number of frames: all pictures of a row have one shape.
          stills: show only the first frame of a clip.
          views: views of each picture if pixels are read: itself and random ones. Features have their own.
          flip: whether training may mirror the pictures.

        Raises:
          FileNotFoundError, ValueError: there is no such data set, split or style, or the features are of another data
            set or trunk.
        """
        self._records, self._format = open_split(path, split), pictures
        if 'frames' not in self._records[0]:
            raise UserError(
                f'{path} is no picture set: its records hold {sorted(self._records[0])}. Give a picture set, or '
                'another kind of data set, such as Documents.'
            )
        self._shown = slice(1 if stills else None)
        self._read = bool(features), stills, dataclasses.asdict(pictures)  # How pictures are read.
        self._digests: dict[int, str] = {}  # Of the pictures that were asked for.
        self._features = (
            Features(features, split, self._records, pictures=pictures, frames=frames) if features else None
        )
        self.blank = pictures.blank(frames, bool(features))[self._shown]
        self.views, self.flip = self._features.views if self._features else views, flip
        found = []
        for index in range(len(self._records)):
            record = self._records[index]
            if len(record['frames']) != frames:
                continue
            names = zip(record['languages'], record['names'], strict=True)
            found.append(
                Picture(
                    index=index,
                    concept=record['concept'].decode(),
                    style=record['style'].decode(),
                    category=record['category'].decode(),
                    subcategory=record['subcategory'].decode(),
                    names={language.decode(): name.decode() for language, name in names},
                    heldout_languages=frozenset(language.decode() for language in record['heldout_languages']),
                    questions=_questions(record),
                )
            )
        self._where = f'The split {split!r} of {path}'
        self._keep(found, styles, things_of)

    def only(self, styles: Sequence[str]) -> 'PictureSet':
        """The pictures of these styles, () is all. Nothing is read again. ValueError for an unknown style."""
        chosen = copy.copy(self)
        chosen._keep(self.pictures, styles)
        return chosen

    def _keep(self, pictures: Sequence[Picture], styles: Sequence[str], things_of: Sequence[str] = ()) -> None:
        have = collections.Counter(picture.style for picture in pictures)
        if unknown := sorted({*styles, *things_of} - set(have)):
            raise UserError(f'{self._where} has no pictures of style {unknown}. Its styles are {dict(have)}.')
        shown = {picture.concept for picture in pictures if not things_of or picture.style in things_of}
        kept = [picture for picture in pictures if not styles or picture.style in styles]
        self.pictures = [picture for picture in kept if picture.concept in shown]
        self.by_concept: dict[str, list[Picture]] = collections.defaultdict(list)
        for picture in self.pictures:
            self.by_concept[picture.concept].append(picture)

    def frames(self, picture: Picture, view: int = 0) -> Frames:
        """Pixels uint8 [t height width 3], or features [t s d_v]; PictureError if the picture cannot be read.

        view: 0 is the picture itself; the others are random views of it (`inputs/augment.py`).
        """
        if self._features is not None:
            frames = self._features.frames(picture.index, view)[self._shown]
        else:
            encoded = list(self._records[picture.index]['frames'])[self._shown]
            frames = to_frames(encoded, self._format.size, self._format.fit)
            if view:  # As `flamingo_jax.features` makes it.
                frames = augment.view(frames, np.random.default_rng((picture.index, view)))
        # A reversed loop still begins with the first frame, so that its ends do not reveal the direction.
        return np.concatenate([frames[:1], frames[:0:-1]]) if picture.backward else frames

    def identity(self, picture: Picture) -> list[Any]:
        """What `frames` depends on, as JSON."""
        if picture.index not in self._digests:
            frames = self._records[picture.index]['frames']
            self._digests[picture.index] = hashlib.sha256(b''.join(frames)).hexdigest()
        return [self._digests[picture.index], picture.backward, *self._read]

    def encoded(self, picture: Picture, frame: int = 0) -> bytes:
        """A frame's encoded bytes, for reports."""
        return self._records[picture.index]['frames'][frame]


def _questions(record) -> tuple[tuple[str, str], ...]:
    if 'questions' not in record:
        return ()
    pairs = zip(record['questions'], record['answers'], strict=True)
    return tuple((question.decode(), answer.decode()) for question, answer in pairs)
