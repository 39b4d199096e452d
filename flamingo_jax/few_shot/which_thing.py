"""Which thing: two pictures, labelled ` first` and ` second`, then `which is a dog?` or `what is the first?`.

`Which` asks about kinds. Here about half of the pairs are of one subcategory, such as a cat and a dog.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flamingo_jax.few_shot import game
from flamingo_jax.few_shot.episode import Episode, Part, Pool
from flamingo_jax.few_shot.is_it import Things, english_names
from flamingo_jax.few_shot.kinds import asked
from flamingo_jax.few_shot.which import PLACES, of_two, require_beginning
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet

BEGINNINGS = ('which is ', 'what is the ')


class WhichThing(game.Game):
    """A question about one of two pictures, by the names of what they show."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Pairs, each with its question."""

        def open(self, pictures: PictureSet, shots: int) -> None:
            """Takes the things that have an English name."""
            super().open(pictures, shots)
            self.things = Things(pictures.pictures, english_names(pictures.pictures))
            self.concepts = sorted(self.things.by_concept)

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """Half as many pairs as there are pictures in a sequence."""
            chunks = []
            for _ in range(self.shots // 2):
                one = self.of_concept(rng, self.concepts[rng.integers(len(self.concepts))], None)
                two = one, self.of_concept(rng, self.things.other(one, rng), one.style)
                for picture, place in zip(two, PLACES, strict=True):
                    chunks.append(Chunk(self.seen(rng, picture), (f' {place}',), (0.0,)))
                names = tuple(self.things.names[picture.concept] for picture in two)
                question, answer = of_two(names, BEGINNINGS, rng)
                chunks.append(Chunk(None, (asked(question), f' {answer}'), (0.0, 1.0)))
            return chunks

    @dataclasses.dataclass
    class Episodes(game.Episodes):
        """A question about one of two pictures; a shot is a pair. The names are those of the support's pictures."""

        questions: str = ''  # Ask only the questions that begin so.

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Finds the pictures of things that the support names."""
            super().open(queries, support, shots, answers)
            require_beginning(self.questions, BEGINNINGS)
            names = english_names(support.pictures.pictures)
            self.asked, self.shown = (Things(pool.pictures.pictures, names) for pool in (queries, support))
            # As many pairs as examples, without the query's, whose two things may be the only others of a third.
            self.require((len(self.shown.pictures) - 2 * self.one_split) // 2, 'pairs of pictures with a name')
            if shots and self.one_split and self.shown.fewest < 3:
                raise ValueError(
                    f'some thing has only {self.shown.fewest} others with no word in common, which the query may show '
                    'both, so that no example can show one. Use more pictures, or another split for the support.'
                )

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` pairs with question and answer, then another pair."""
            pair, question, truth, candidates = self._pair(rng, self.queries, self.asked, ())
            asked_about = [part.picture for part in pair]
            examples: list[Part] = []
            for _ in range(shots):
                shown, about, answer, _ = self._pair(rng, self.support, self.shown, asked_about)
                examples += [*shown, Part(None, self.support, f'{asked(about)} {answer}')]
            return Episode(tuple(examples), (*pair, Part(None, self.queries, asked(question))), truth, candidates)

        def nearest(self, episode: Episode) -> None:
            """None: nearest neighbours do not know first from second."""

        def _pair(self, rng, pool: Pool, things: Things, shown: Sequence[Picture]):
            free = self.unlike(things.pictures, shown)
            one = free[rng.integers(len(free))]
            of: list[Picture] = []
            while not of:  # All pictures of the other thing may be shown elsewhere.
                of = self.unlike(things.by_concept[things.other(one, rng)], shown)
            two = one, of[rng.integers(len(of))]
            names = tuple(things.names[picture.concept] for picture in two)
            question, answer = of_two(names, BEGINNINGS, rng, self.questions)
            pair = [Part(picture, pool, f' {place}') for picture, place in zip(two, PLACES, strict=True)]
            return pair, question, answer, names if answer in names else PLACES
