"""Questions: images with a question and its answer, both from the data set.

An image that the data set has with its quarters or ninths (`inputs/images.py:tiles`) can be shown tile by tile, each
as an image of its own with its place:

    <image> top left<image> top right<image> bottom left<image> bottom right<image> Question: where is the dog?

So a quarter is seen at twice the resolution (LLaVA 1.6, Liu et al. 2024), and the text says where it lies. The question
stands after the whole.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import PLACES, Frames
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.image_set import ImageSet, LabelledImage
from flamingo_jax.tasks import game
from flamingo_jax.tasks.episode import Episode, Part, Pool
from flamingo_jax.tasks.kinds import as_question


class Questions(game.Game):
    """The images' own questions."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Images, each with one of its questions, or with several.

        They are not mirrored, since a question may be about left and right.
        """

        questions: str = ''  # Ask only the questions that begin so.
        each: int = 1  # Questions about each image; one that is drawn again is not asked again.
        tiled: bool = False  # Whether an image's frames are its tiles, which are shown one by one.

        def open(self, images: ImageSet, shots: int) -> None:
            """Takes the images that have such a question."""
            super().open(images, shots)
            self._places = places_of(images) if self.tiled else ()
            self._asked = asked_of(images, self.questions)

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """Any images."""
            chunks: list[Chunk] = []
            for i in rng.choice(len(self._asked), self.shots):
                image, questions = self._asked[i]
                drawn = dict.fromkeys(rng.integers(len(questions), size=self.each).tolist())
                seen: Callable[[], Frames] | None = self.seen(rng, image, mirrored=False)
                if self.tiled:
                    every = cache(seen)  # Read once for all tiles.
                    chunks += [
                        Chunk(partial(_tile, every, tile), (f' {place}',), (0.0,)) for tile, place in self._places
                    ]
                    seen = partial(_tile, every, 0)
                for question, answer in (questions[number] for number in drawn):
                    chunks.append(Chunk(seen, (as_question(question), f' {answer}'), (0.0, 1.0)))
                    seen = None  # Further questions stand after the first.
            return chunks

    @dataclasses.dataclass
    class Episodes(game.Episodes):
        """The images' own questions. Candidates are the answers that such questions have."""

        questions: str = ''  # Ask only the questions that begin so.
        tiled: bool = False  # Whether an image's frames are its tiles, which are shown one by one.

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Sorts images by their questions."""
            super().open(queries, support, shots, answers)
            self._places = places_of(queries.images) if self.tiled else ()
            self.asked, self.shown = (
                [(image, *pair) for image, questions in asked_of(pool.images, self.questions) for pair in questions]
                for pool in (queries, support)
            )
            self._indices = np.array([image.index for image, _, _ in self.shown])
            least = min(len(self.places_without(self._indices, image)) for image, _, _ in self.asked)
            self.require(least, 'questions about other images')
            truths = [answer for _, _, answer in self.asked]
            self.candidates = tuple(sorted(set(truths)))
            self.majority = max(self.candidates, key=truths.count)  # pyright: ignore[reportAttributeAccessIssue]  # Of these alone.

        @property
        def several_parts(self) -> bool:
            """Whether an example is several tiles."""
            return self.tiled

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` images with a question and its answer each, then another."""
            image, question, truth = self.asked[rng.integers(len(self.asked))]
            others = self.places_without(self._indices, image)
            chosen = [self.shown[i] for i in others[rng.choice(len(others), shots, replace=False)]]
            shown: list[Part] = []
            for example, about, answer in chosen:
                shown += self._parts(example, self.support, f'{as_question(about)} {answer}', answer)
            query = self._parts(image, self.queries, as_question(question))
            return Episode(tuple(shown), query, truth, self.candidates)

        def _parts(self, image: LabelledImage, pool: Pool, text: str, label: str = '') -> tuple[Part, ...]:
            """The image, or its tiles, and the text."""
            if not self.tiled:
                return (Part(image, pool, text, label=label),)
            tiles = (Part(image, dataclasses.replace(pool, tile=tile), f' {place}') for tile, place in self._places)
            return (*tiles, Part(image, dataclasses.replace(pool, tile=0), text, label=label))


def asked_of(images: ImageSet, beginning: str) -> list[tuple[LabelledImage, list[tuple[str, str]]]]:
    """The images that have questions that begin so, each with these and their answers.

    Raises ValueError if no image has one.
    """
    with_questions = []
    for image in images.images:
        if questions := [(q, a) for q, a in image.questions if q.startswith(beginning)]:
            with_questions.append((image, questions))
    if not with_questions:
        begins = f' that begins with {beginning!r}. Change `questions`' if beginning else ''
        raise UserError(f'No image of the data set has a question{begins}. data/README.md says which sets have any.')
    return with_questions


def places_of(images: ImageSet) -> list[tuple[int, str]]:
    """The tiles of each image, by the number of their frame, with their places; ValueError if it has none."""
    for places in PLACES.values():
        if len(images.blank) == 1 + len(places):
            return list(enumerate(places, 1))
    raise UserError(
        f'Tiles are shown of images with 5 or 10 frames, the whole and its tiles, and these have '
        f'{len(images.blank)}. Use a data set of tiles (data/README.md), and set its frames.'
    )


def _tile(seen: Callable[[], Frames], tile: int) -> Frames:
    """One frame [1 ...] of an image."""
    return seen()[tile : tile + 1]
