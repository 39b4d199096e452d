"""What a game is: a task that only the prompt can tell, in one file with both of its sides.

    class Words(Game):
        class Sequences    what a model is trained on:  `game(Words, share=0.6, classes=(2, 5))` in a training config
        class Episodes     what a model is asked:       `task(Words, shots=(1, 2, 4), ways=5)` in an evaluation config

Both are dataclasses whose fields are what a config may say. `open` gets the pictures and refuses what cannot be done with
them; `draw` and `episode` then take a random generator and nothing else that changes.

The language model meets the same tasks in text first (data/dictionary_text/documents.py). Those texts are not here: they
draw from a lexicon of 36 languages and from WordNet, which need no pictures and come from other packages, and a document ends
by its bytes. What both must agree on is here: the invented words, the questions, and which kinds exclude one another.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from flamingo_jax.few_shot.episode import Episode, Part, Pool
from flamingo_jax.inputs.augment import mirror
from flamingo_jax.inputs.images import Frames
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet


@dataclasses.dataclass
class Sequences:
    """Training sequences of one game: a random map from nothing to documents."""

    prompt: str = ''  # Between a picture and its answer: '' is the paper's training format, ' Output:' its prompt's.

    def open(self, pictures: PictureSet, shots: int) -> None:
        """Takes the pictures to draw from, and how many a sequence shows; ValueError if they lack what the game needs."""
        self.pictures, self.shots = pictures, shots
        self.concepts = sorted(pictures.by_concept)

    def draw(self, rng: np.random.Generator) -> list[Chunk]:
        """One document."""
        raise NotImplementedError

    def seen(self, rng: np.random.Generator, picture: Picture, mirrored: bool = True) -> Callable[[], Frames]:
        """One of the picture's views, by chance mirrored. Drawn now: a picture is read later, in whatever order."""
        flipped = rng.random() < 0.5 and mirrored
        view = int(rng.integers(self.pictures.views))

        def get():
            frames = self.pictures.frames(picture, view)
            return mirror(frames) if flipped else frames

        return get

    def of_concept(self, rng, concept: str, not_style: str | None, style: str | None = None) -> Picture:
        """A picture of a concept: in this style, or not in that one, where there is such a picture."""
        pictures = self.pictures.by_concept[concept]
        wanted = [p for p in pictures if (p.style == style if style else p.style != not_style)] or pictures
        return wanted[rng.integers(len(wanted))]

    def named_in(self, languages: Sequence[str]) -> None:
        """ValueError if no picture has a name in one of these languages."""
        named = {language for picture in self.pictures.pictures for language in picture.names}
        if unknown := sorted(set(languages) - named):
            raise ValueError(f'The picture set has no names in {unknown}; it has {sorted(named)}.')


@dataclasses.dataclass
class Episodes:
    """What one game asks: a query, and examples that never show the query's picture."""

    prompt: str = ''  # Between a picture and its answer, as in training.

    # How an answer may be given: 'ranked' by likelihood among the candidates, 'open-ended' by generation, or as the game says.
    answers: ClassVar[tuple[str, ...]] = ('ranked', 'open-ended')
    retrieval: ClassVar[bool] = False  # Whether `episode` can take the examples most like the query ('rices').
    majority: ClassVar[str | None] = None  # The most frequent answer, where always giving it says something.

    def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
        """Takes the pictures to ask about and those of the examples, of which `shots` at most are shown.

        Raises ValueError if they do not suffice for every query, with the query's picture left out.
        """
        self.queries, self.support, self.shots = queries, support, shots
        self.one_split = queries.split == support.split

    def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
        """One question with `shots` examples; support is 'random' or 'rices', answers one of `answers`."""
        raise NotImplementedError

    def nearest(self, episode: Episode) -> tuple[str, str] | None:
        """What nearest neighbour and nearest centroid on the frozen features would answer; None where they cannot."""

    def unlike(self, pictures: Sequence[Picture], shown: Sequence[Picture]) -> list[Picture]:
        """Pictures without those that are shown elsewhere in the episode. Another split never holds the same."""
        if not self.one_split:
            return list(pictures)
        indices = {picture.index for picture in shown}
        return [picture for picture in pictures if picture.index not in indices]

    def require(self, have: int, what: str) -> None:
        """ValueError if there are fewer pictures than examples."""
        if have < self.shots:
            raise ValueError(
                f'{self.shots} shots need as many {what}, and beside the query there are {have}: '
                'ask for fewer shots, or take more styles or another split as support.'
            )

    def example(self, picture: Picture, label: str) -> Part:
        return Part(picture, self.support, f'{self.prompt} {label}')

    def query(self, picture: Picture) -> Part:
        return Part(picture, self.queries, self.prompt)


class Game:
    """A game; each one's file says what it is."""

    Sequences: ClassVar[type[Sequences]]
    Episodes: ClassVar[type[Episodes]]
