"""Stored documents: texts and images in reading order, written by a builder (ArrayRecord) or by a user (.jsonl).

A record has three parallel lists, `texts`, `images` and `weights`; each place holds a text or an image. An image is
an encoded file or a path; a video is a list of those, its frames, or an encoded clip (`inputs/videos.py`).

A text of weight 0 after one that is learnt begins a new chunk, so that what is learnt ends with <EOC>: in a dialogue
about one image each answer does, before the next question. In a chat, an answer ends with a mark of its own.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.files import as_path
from flamingo_jax.inputs import augment
from flamingo_jax.inputs.images import Frames, ImageError, ImageFormat, to_frames
from flamingo_jax.inputs.prompts import chats
from flamingo_jax.inputs.rows import Chunk, Interleaved
from flamingo_jax.inputs.sources.array_record import open_split, splits
from flamingo_jax.inputs.sources.features import Features, fingerprint, read_array
from flamingo_jax.inputs.sources.json_lines import JsonLines
from flamingo_jax.inputs.sources.source import Opened, Source
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.inputs.videos import to_video

TRIED = 16  # Documents whose images are tried before training.


@dataclasses.dataclass(frozen=True)
class Documents(Source):
    """A folder written by a builder, or a .jsonl file of your own documents.

    A .jsonl file has one split, of any name.
    """

    flip: bool = False  # Mirror images at random (paper, appendix B.1.2). Not for texts that tell left from right.
    recolour: bool = False  # Change brightness, contrast and saturation at random (paper, appendix B.1.2).
    # The texts are chats, written with the marks of `inputs/prompts.py:chat`, which are then tokens as they are when a
    # model is asked. Where a text's author cannot be trusted with marks, they are characters: False.
    chat: bool = False
    space: float = (
        0.0  # Probability that the first text after an image begins with a space (paper: 0.5 of paired texts).
    )

    def open(self, image_format: ImageFormat) -> Opened:
        """Opens the documents; errors as for `open_split`, `JsonLines` and `Features`, or if these are none."""
        return _Opened(self, image_format)

    def check(self, opened: Opened, tokenizer: Tokenizer) -> None:
        """ValueError if most documents have no text to learn within a row, or if none of some images can be read.

        Rows leave such images out with their texts. And ValueError if they are chats, but the language model has no
        marks of a chat.
        """
        if self.chat and not chats(tokenizer):
            raise UserError(
                f'{self.path} is read with chat=True, but the language model does not chat: its tokenizer has no '
                '<|im_start|>. Take one that does, or build the data set without --chat and leave out chat=True.'
            )
        rng, errors = np.random.default_rng(0), []
        documents = [opened.document(int(i), rng) for i in rng.integers(len(opened), size=TRIED)]
        room = min(self.length, self.window[0]) if self.documents > 1 else self.length
        if self.row is Interleaved and (unlearnt := self.unlearnt(documents, tokenizer)) > TRIED // 2:
            raise UserError(
                f'Of {TRIED} documents of {self.path}, {unlearnt} have nothing to learn within {room} tokens: what '
                f'is only read fills them. Give the data set a larger `length`, or `window` if it packs.'
            )
        for document in documents if self.images else ():
            for chunk in document:
                try:
                    if chunk.image is None and any(chunk.weights) and not chunk.continues:
                        return
                    if chunk.image and chunk.image() is not None:
                        return
                except ImageError as error:
                    errors.append(str(error))
        if errors:
            raise UserError(
                f'None of the {len(set(errors))} images of {self.path} that were tried can be read: nothing would be '
                f'learned. The first: {errors[0]}'
                + (' If they are videos, set `frames` of the data set, such as frames=8.' if self.frames == 1 else '')
            )


def open_records(path: str, split: str) -> Sequence[dict[str, Any]]:
    """The records of stored documents; errors as for `open_split` and `JsonLines`."""
    return JsonLines(path) if path.endswith('.jsonl') else open_split(path, split)


def contents(source: Source) -> str:
    """Identifies what a data set holds (`fingerprint`); '' for a kind that is stored in a way of its own."""
    stored = source.path.endswith('.jsonl') or (as_path(source.path) / 'dataset_info.json').is_file()
    return fingerprint(open_records(source.path, source.split)) if stored else ''


def splits_of(path: str) -> list[str]:
    """The splits of stored documents or images. That of a .jsonl file has any name: here the usual one."""
    return [Source.split] if path.endswith('.jsonl') else splits(path)


def holds_image(place: Any) -> bool:
    """Whether a place of a record's `images` holds an image or a video."""
    return len(place) > 0 if isinstance(place, bytes | Sequence | np.ndarray) else True


def read_stored(image: Any, frames: int, image_format: ImageFormat, start: float = 0.5) -> Frames:
    """Pixels of a stored image, or of so many frames of a video; `start` and errors as for `to_video`."""
    if frames == 1:
        return to_frames(image, image_format.size, image_format.fit)
    return to_video(image, frames, image_format.size, fit=image_format.fit, start=start)


class _Opened:
    def __init__(self, source: Documents, image_format: ImageFormat):
        self._source, self._image_format = source, image_format
        self._records = open_records(source.path, source.split)
        if 'texts' not in self._records[0]:
            raise UserError(
                f'{source.path} has no documents: its records hold {sorted(self._records[0])}. Give stored documents, '
                'or another kind of data set, such as FewShot for images with names.'
            )
        self._features = None
        if source.features and source.images:
            self._features = Features(
                source.features, source.split, self._records, image_format=image_format, frames=source.frames
            )
            self._begins = read_array(as_path(source.features) / f'{source.split}.begins.npy')

    def __len__(self) -> int:
        return len(self._records)

    def document(self, index: int, rng: np.random.Generator) -> list[Chunk]:
        """Document `index` as chunks. Images begin one, and questions after answers. A set of text drops images."""
        record, source = self._records[index], self._source
        chunks, number = [Chunk(None, [], [], marks=source.chat)], 0
        for text, image, weight in zip(record['texts'], record['images'], record['weights'], strict=True):
            if holds_image(image) and source.images:
                chunks.append(Chunk(self._image(image, index, number, rng), [], [], marks=source.chat))
                number += 1
            elif text:
                text = text.decode()
                if not weight and chunks[-1].weights and chunks[-1].weights[-1] and not source.chat:
                    chunks.append(Chunk(None, [], [], continues=True))
                first = chunks[-1].image is not None and not chunks[-1].texts
                if source.space and first and rng.random() < source.space:
                    text = f' {text}'
                cast(list[str], chunks[-1].texts).append(text)
                cast(list[float], chunks[-1].weights).append(float(weight))
        return [chunk for chunk in chunks if chunk.image or chunk.texts]

    def _image(self, image: Any, index: int, number: int, rng: np.random.Generator) -> Callable[[], Frames]:
        """A function that reads image `number` of a document. Random choices are made now, before it is called."""
        source = self._source
        flip = source.flip and rng.random() < 0.5
        if self._features is not None:
            view = int(rng.integers(self._features.views)) if self._features.views > 1 else 0
            return functools.partial(self._read_features, int(self._begins[index]) + number, view, flip)
        start = float(rng.random()) if source.frames > 1 else 0.0
        colours = augment.draw_colours(rng) if source.recolour else None
        return functools.partial(self._read_pixels, image, start, flip, colours)

    def _read_features(self, image: int, view: int, flip: bool) -> Frames:
        frames = self._features.frames(image, view)
        return augment.mirror(frames) if flip else frames

    def _read_pixels(self, image: Any, start: float, flip: bool, colours: tuple[float, ...] | None) -> Frames:
        pixels = read_stored(image, self._source.frames, self._image_format, start)
        pixels = augment.mirror(pixels) if flip else pixels
        return augment.recolour(pixels, colours) if colours else pixels
