"""A game: a task that only the prompt can tell. One file per game has its training and its evaluation.

    class Words(Game):
        class Sequences    what a model is trained on:  `game(Words, share=0.6, classes=(2, 5))` in a training config
        class Episodes     what a model is asked:       `task(Words, shots=(1, 2, 4), ways=5)` in an evaluation config

Both are dataclasses, and a config can set their fields. `open` takes the images and raises an error if they do not
suffice. After that, `draw` and `episode` depend on their arguments alone.

The language model is first trained on the same tasks in text (data/dictionary_text/documents.py). That text needs no
images; it comes from a lexicon of 36 languages and from WordNet. What both must agree on is in this folder: the
invented words, the questions, and which kinds exclude one another.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.augment import mirror
from flamingo_jax.inputs.images import Frames
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.image_set import ImageSet, LabelledImage
from flamingo_jax.tasks.episode import Episode, Part, Pool


@dataclasses.dataclass
class Sequences:
    """Training sequences of one game: random documents."""

    # Text between an image and its answer: '' as in the paper's training data, ' Output:' as in its prompts.
    prompt: str = ''

    def open(self, images: ImageSet, shots: int) -> None:
        """Takes the images, and how many a sequence shows. ValueError if they do not suffice for the game."""
        self.images, self.shots = images, shots
        self.concepts = sorted(images.by_concept)

    def draw(self, rng: np.random.Generator) -> list[Chunk]:
        """One document."""
        raise NotImplementedError

    def seen(self, rng: np.random.Generator, image: LabelledImage, mirrored: bool = True) -> Callable[[], Frames]:
        """A function that reads a random view of the image, perhaps mirrored. Random choices are made now."""
        flipped = rng.random() < 0.5 and mirrored and self.images.flip
        view = int(rng.integers(self.images.views))

        def get():
            frames = self.images.frames(image, view)
            return mirror(frames) if flipped else frames

        return get

    def of_concept(
        self, rng: np.random.Generator, concept: str, not_style: str | None, style: str | None = None
    ) -> LabelledImage:
        """An image of a concept: of style `style`, or not of `not_style`, if there is one."""
        images = self.images.by_concept[concept]
        wanted = [p for p in images if (p.style == style if style else p.style != not_style)] or images
        return wanted[rng.integers(len(wanted))]

    def require_names(self, languages: Sequence[str]) -> None:
        """ValueError if no image has a name in some of these languages."""
        named = {language for image in self.images.images for language in image.names}
        if unknown := sorted(set(languages) - named):
            raise UserError(f'The image set has no names in {unknown}. Its languages are {sorted(named)}.')


@dataclasses.dataclass
class Episodes:
    """The questions of one game: a query, and examples that never show the query's image."""

    prompt: str = ''  # Text between an image and its answer, as in training.

    # The possible kinds of answers: 'ranked' by likelihood among candidates, 'open-ended' by generation, or the game's
    # own.
    answers: ClassVar[tuple[str, ...]] = ('ranked', 'open-ended')
    retrieval: ClassVar[bool] = False  # Whether `episode` can take the examples most similar to the query ('rices').
    majority: ClassVar[str | None] = None  # The most frequent answer, if it is a useful baseline.
    several_parts: ClassVar[bool] = False  # Whether an example has several images.

    def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
        """Takes the images of queries and of examples. A prompt shows at most `shots` examples.

        ValueError if they do not suffice for every query, with the query's image left out.
        """
        self.queries, self.support, self.shots = queries, support, shots
        self.one_split = queries.split == support.split

    def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
        """One question with `shots` examples. `support` is 'random' or 'rices'; `answers` is one of the class's."""
        raise NotImplementedError

    def nearest(self, episode: Episode) -> tuple[str, str] | None:
        """The answers of nearest neighbour and nearest centroid on the frozen features; None if they have none."""

    def without(self, images: Sequence[LabelledImage], shown: Sequence[LabelledImage]) -> list[LabelledImage]:
        """The images without those shown elsewhere in the episode. Splits have no image in common."""
        if not self.one_split:
            return list(images)
        indices = {image.index for image in shown}
        return [image for image in images if image.index not in indices]

    def places_without(self, indices: Int[np.ndarray, ' n'], query: LabelledImage) -> Int[np.ndarray, ' m']:
        """The places, among images with these indices, of those that are not the query's."""
        return np.flatnonzero(indices != query.index) if self.one_split else np.arange(len(indices))

    def require(self, have: int, what: str) -> None:
        """ValueError if there are fewer images than examples."""
        if have < self.shots:
            raise UserError(
                f'{self.shots} shots need {self.shots} {what}, but besides the query there are only {have}. Use fewer '
                'shots, or more styles or another split for the support.'
            )

    def example(self, image: LabelledImage, label: str) -> Part:
        """An image of the support with its label."""
        return Part(image, self.support, f'{self.prompt} {label}', label=label)

    def query(self, image: LabelledImage) -> Part:
        """The image that is asked about; the answer begins where its text ends."""
        return Part(image, self.queries, self.prompt)


class Game:
    """A game. The file of each one describes it."""

    Sequences: ClassVar[type[Sequences]]
    Episodes: ClassVar[type[Episodes]]
