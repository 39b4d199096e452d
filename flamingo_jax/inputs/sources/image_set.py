"""A prepared image set (`data/picture_dictionary`): images of concepts, with their names in many languages.

The descriptions of the images are read once and kept; the images stay encoded on disk until they are needed. If the
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
from flamingo_jax.inputs.images import Frames, ImageFormat, to_frames
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.inputs.sources.features import Features


@dataclasses.dataclass(frozen=True)
class LabelledImage:
    """What is known of one image (or clip); `index` is its place in the split."""

    index: int
    concept: str
    style: str
    category: str
    subcategory: str
    names: dict[str, str]  # Language -> name.
    heldout_languages: frozenset[str]  # Languages whose name for this concept training never shows.
    questions: tuple[tuple[str, str], ...] = ()  # Questions about it, with their answers.
    backward: bool = False  # Whether a clip plays backward from its first frame.


class ImageSet:
    """Random access to the images of one split.

    Attributes:
      images: the images of the chosen styles.
      by_concept: concept -> its images.
      blank: an empty image, with the shape and dtype of what `frames` returns.
      views: number of views of each image.
    """

    def __init__(
        self,
        path: str,
        split: str,
        image_format: ImageFormat,
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
          image_format: how images are read.
          styles: keep only images of these; () keeps all.
          things_of: keep only images of concepts that these styles show; () keeps all.
          features: folder written by the features command; '' reads pixels.
          frames: keep only images with this number of frames: all images of a row have one shape.
          stills: show only the first frame of a clip.
          views: views of each image if pixels are read: itself and random ones. Features have their own.
          flip: whether training may mirror the images.

        Raises:
          FileNotFoundError, ValueError: there is no such data set, split or style, or the features are of another data
            set or trunk.
        """
        self._records, self._format = open_split(path, split), image_format
        if 'frames' not in self._records[0]:
            raise UserError(
                f'{path} is no image set: its records hold {sorted(self._records[0])}. Give an image set, or '
                'another kind of data set, such as Documents.'
            )
        self._shown = slice(1 if stills else None)
        self._read = bool(features), stills, dataclasses.asdict(image_format)  # How images are read.
        self._digests: dict[int, str] = {}  # Of the images that were asked for.
        self._features = (
            Features(features, split, self._records, image_format=image_format, frames=frames) if features else None
        )
        self.blank = image_format.blank(frames, bool(features))[self._shown]
        self.views, self.flip = self._features.views if self._features else views, flip
        found = []
        for index in range(len(self._records)):
            record = self._records[index]
            if len(record['frames']) != frames:
                continue
            names = zip(record['languages'], record['names'], strict=True)
            found.append(
                LabelledImage(
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

    def only(self, styles: Sequence[str]) -> 'ImageSet':
        """The images of these styles, () is all. Nothing is read again. ValueError for an unknown style."""
        chosen = copy.copy(self)
        chosen._keep(self.images, styles)
        return chosen

    def _keep(self, images: Sequence[LabelledImage], styles: Sequence[str], things_of: Sequence[str] = ()) -> None:
        have = collections.Counter(image.style for image in images)
        if unknown := sorted({*styles, *things_of} - set(have)):
            raise UserError(f'{self._where} has no images of style {unknown}. Its styles are {dict(have)}.')
        shown = {image.concept for image in images if not things_of or image.style in things_of}
        kept = [image for image in images if not styles or image.style in styles]
        self.images = [image for image in kept if image.concept in shown]
        self.by_concept: dict[str, list[LabelledImage]] = collections.defaultdict(list)
        for image in self.images:
            self.by_concept[image.concept].append(image)

    def frames(self, image: LabelledImage, view: int = 0) -> Frames:
        """Pixels uint8 [t height width 3], or features [t s d_v]; ImageError if the image cannot be read.

        view: 0 is the image itself; the others are random views of it (`inputs/augment.py`).
        """
        if self._features is not None:
            frames = self._features.frames(image.index, view)[self._shown]
        else:
            encoded = list(self._records[image.index]['frames'])[self._shown]
            frames = to_frames(encoded, self._format.size, self._format.fit)
            if view:  # As `flamingo_jax.features` makes it.
                frames = augment.view(frames, np.random.default_rng((image.index, view)))
        # A reversed loop still begins with the first frame, so that its ends do not reveal the direction.
        return np.concatenate([frames[:1], frames[:0:-1]]) if image.backward else frames

    def identity(self, image: LabelledImage) -> list[Any]:
        """What `frames` depends on, as JSON."""
        if image.index not in self._digests:
            frames = self._records[image.index]['frames']
            self._digests[image.index] = hashlib.sha256(b''.join(frames)).hexdigest()
        return [self._digests[image.index], image.backward, *self._read]

    def encoded(self, image: LabelledImage, frame: int = 0) -> bytes:
        """A frame's encoded bytes, for reports."""
        return self._records[image.index]['frames'][frame]


def _questions(record) -> tuple[tuple[str, str], ...]:
    if 'questions' not in record:
        return ()
    pairs = zip(record['questions'], record['answers'], strict=True)
    return tuple((question.decode(), answer.decode()) for question, answer in pairs)
