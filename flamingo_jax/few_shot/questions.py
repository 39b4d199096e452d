"""Questions: pictures with a question and its answer, both from the data set.

A picture that the data set has with its quarters or ninths (`inputs/images.py:tiles`) can be shown tile by tile, each
as a picture of its own with its place:

    <image> top left<image> top right<image> bottom left<image> bottom right<image> Question: where is the dog?

So a quarter is seen at twice the resolution (LLaVA 1.6, Liu et al. 2024), and the text says where it lies. The question
stands after the whole.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.few_shot import game
from flamingo_jax.few_shot.episode import Episode, Part, Pool
from flamingo_jax.few_shot.kinds import as_question
from flamingo_jax.inputs.images import PLACES, Frames
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet


class Questions(game.Game):
    """The pictures' own questions."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Pictures, each with one of its questions, or with several.

        They are not mirrored, since a question may be about left and right.
        """

        questions: str = ''  # Ask only the questions that begin so.
        each: int = 1  # Questions about each picture; one that is drawn again is not asked again.
        tiled: bool = False  # Whether a picture's frames are its tiles, which are shown one by one.

        def open(self, pictures: PictureSet, shots: int) -> None:
            """Takes the pictures that have such a question."""
            super().open(pictures, shots)
            self._places = places_of(pictures) if self.tiled else ()
            self._asked = asked_of(pictures, self.questions)

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """Any pictures."""
            chunks: list[Chunk] = []
            for i in rng.choice(len(self._asked), self.shots):
                picture, questions = self._asked[i]
                drawn = dict.fromkeys(rng.integers(len(questions), size=self.each).tolist())
                seen: Callable[[], Frames] | None = self.seen(rng, picture, mirrored=False)
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
        """The pictures' own questions. Candidates are the answers that such questions have."""

        questions: str = ''  # Ask only the questions that begin so.
        tiled: bool = False  # Whether a picture's frames are its tiles, which are shown one by one.

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Sorts pictures by their questions."""
            super().open(queries, support, shots, answers)
            self._places = places_of(queries.pictures) if self.tiled else ()
            self.asked, self.shown = (
                [(picture, *one) for picture, questions in asked_of(pool.pictures, self.questions) for one in questions]
                for pool in (queries, support)
            )
            self._indices = np.array([picture.index for picture, _, _ in self.shown])
            least = min(len(self.places_without(self._indices, picture)) for picture, _, _ in self.asked)
            self.require(least, 'questions about other pictures')
            truths = [answer for _, _, answer in self.asked]
            self.candidates = tuple(sorted(set(truths)))
            self.majority = max(self.candidates, key=truths.count)  # pyright: ignore[reportAttributeAccessIssue]  # Of these alone.

        @property
        def several_parts(self) -> bool:
            """Whether an example is several tiles."""
            return self.tiled

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` pictures with a question and its answer each, then another."""
            picture, question, truth = self.asked[rng.integers(len(self.asked))]
            others = self.places_without(self._indices, picture)
            chosen = [self.shown[i] for i in others[rng.choice(len(others), shots, replace=False)]]
            shown: list[Part] = []
            for example, about, answer in chosen:
                shown += self._parts(example, self.support, f'{as_question(about)} {answer}')
            query = self._parts(picture, self.queries, as_question(question))
            return Episode(tuple(shown), query, truth, self.candidates)

        def _parts(self, picture: Picture, pool: Pool, text: str) -> tuple[Part, ...]:
            """The picture, or its tiles, and the text."""
            if not self.tiled:
                return (Part(picture, pool, text),)
            tiles = (Part(picture, dataclasses.replace(pool, tile=tile), f' {place}') for tile, place in self._places)
            return (*tiles, Part(picture, dataclasses.replace(pool, tile=0), text))


def asked_of(pictures: PictureSet, beginning: str) -> list[tuple[Picture, list[tuple[str, str]]]]:
    """The pictures that have questions that begin so, each with these and their answers.

    Raises ValueError if no picture has one.
    """
    found = []
    for picture in pictures.pictures:
        if questions := [(q, a) for q, a in picture.questions if q.startswith(beginning)]:
            found.append((picture, questions))
    if not found:
        begins = f' that begins with {beginning!r}. Change `questions`' if beginning else ''
        raise UserError(f'No picture of the data set has a question{begins}. data/README.md says which sets have any.')
    return found


def places_of(pictures: PictureSet) -> list[tuple[int, str]]:
    """The tiles of each picture, by the number of their frame, with their places; ValueError if it has none."""
    for places in PLACES.values():
        if len(pictures.blank) == 1 + len(places):
            return list(enumerate(places, 1))
    raise UserError(
        f'Tiles are shown of pictures with 5 or 10 frames, the whole and its tiles, and these have '
        f'{len(pictures.blank)}. Use a data set of tiles (data/README.md), and set its frames.'
    )


def _tile(seen: Callable[[], Frames], tile: int) -> Frames:
    """One frame [1 ...] of a picture."""
    return seen()[tile : tile + 1]
