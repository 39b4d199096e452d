"""True names: pictures with what they are called in one language, which the prompt must tell."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from flamingo_jax.few_shot import game
from flamingo_jax.few_shot.episode import Episode, Pool
from flamingo_jax.few_shot.nearest import most_similar, nearest
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet

OTHER_THINGS = 4  # Whose names in all languages stand beside those of the query, where the language is asked for.


class Names(game.Game):
    """True names of pictures in one language."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Pictures with their names in a language that the sequence must follow."""

        languages: tuple[str, ...] = ('en',)
        repeats: float = 0.0  # Probability that a sequence shows few concepts again and again, as retrieval does.

        def open(self, pictures: PictureSet, shots: int) -> None:
            """A concept a picture, unless they come again."""
            super().open(pictures, shots)
            self.named_in(self.languages)
            if len(self.concepts) < shots:
                raise ValueError(
                    f'Sequences of {shots} pictures of different concepts: the picture set has {len(self.concepts)} concepts.'
                )

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """Pictures with true names in one language; what has none in it is left out."""
            language = self.languages[rng.integers(len(self.languages))]
            few = self.shots
            if rng.random() < self.repeats and self.shots > 1:
                few = int(rng.integers(min(2, self.shots - 1), self.shots))
            concepts = rng.choice(len(self.concepts), few, replace=False)
            chunks, style = [], None
            for i in concepts if few == self.shots else rng.choice(concepts, self.shots):
                picture = self.of_concept(rng, self.concepts[i], style)
                style = picture.style
                if language not in picture.names or language in picture.heldout_languages:
                    continue
                label = f' {picture.names[language]}'
                chunks.append(Chunk(self.seen(rng, picture), (self.prompt, label), (0.0, 1.0)))
            return chunks

    @dataclasses.dataclass
    class Episodes(game.Episodes):
        """What a picture is called. The names are those of the support: a stamp says `A hammer`, a drawing `hammer`.

        Answers of 'language' are ranked among the names that the query and some other things have in all languages; those in
        the language of the prompt are right.
        """

        language: str = 'en'
        heldout: bool = False  # Ask for those names that training never showed; else for the others.

        answers = ('ranked', 'open-ended', 'language')
        retrieval = True

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """The pictures that have a name. Asked for is what the support shows too: no other name can be learned there."""
            super().open(queries, support, shots, answers)
            pictures = support.pictures.pictures
            self._names = {p.concept: p.names for p in reversed(pictures) if self.language in p.names}

            def kept(pool: Pool, heldout: bool) -> list[Picture]:
                named = [p for p in pool.pictures.pictures if p.concept in self._names]
                return [p for p in named if (self.language in p.heldout_languages) == heldout]

            self.asked, self.named = kept(queries, self.heldout), kept(support, False)
            if not self.asked or not self.named:
                raise ValueError(
                    f'of the pictures asked for {len(self.asked)} show what the support shows, and of the support '
                    f'{len(self.named)} have a name in {self.language!r} that is '
                    f'{"held out" if self.heldout else "shown in training"}.'
                )
            self._indices = np.array([p.index for p in self.named])
            least = min(len(self._others(query)) for query in self.asked)
            self.require(least, f'pictures that have a name in {self.language!r}')
            if 'language' in answers and len(self._names) <= OTHER_THINGS:
                raise ValueError(
                    f"'language' asks among the names of {OTHER_THINGS + 1} things, and the support shows "
                    f'{len(self._names)}: take more support, or other answers.'
                )
            self._labels = [self._name(picture) for picture in self.named]
            self._rows = np.stack([support.rows[p.index] for p in self.named])
            # A query comes again at other shots and kinds of answers.
            self._ranked, self._nearest = functools.cache(self._rank), functools.cache(self._find_nearest)
            self._concepts = sorted(self._names)
            self._query_of = {picture.index: picture for picture in self.asked}
            self.candidates = tuple(sorted({names[self.language] for names in self._names.values()}))

        def _name(self, picture: Picture) -> str:
            return self._names[picture.concept][self.language]

        def _others(self, query: Picture) -> np.ndarray:
            """Places of the named pictures that are not the query."""
            return np.flatnonzero(self._indices != query.index) if self.one_split else np.arange(len(self._indices))

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` named pictures, then another."""
            query = self.asked[rng.integers(len(self.asked))]
            others = self._others(query)
            if support == 'rices':
                chosen = self._ranked(query.index)[len(others) - shots :]
            else:
                chosen = others[rng.choice(len(others), shots, replace=False)]
            shown = tuple(self.example(self.named[i], self._labels[i]) for i in chosen)
            if answers != 'language':
                return Episode(shown, (self.query(query),), self._name(query), self.candidates)
            concepts = [concept for concept in self._concepts if concept != query.concept]
            chosen = [concepts[i] for i in rng.choice(len(concepts), OTHER_THINGS, replace=False)]
            things = [self._names[concept] for concept in (query.concept, *chosen)]
            every = tuple(dict.fromkeys(name for names in things for name in names.values()))
            right = tuple(names[self.language] for names in things)
            return Episode(shown, (self.query(query),), self._name(query), every, right)

        def nearest(self, episode: Episode) -> tuple[str, str] | None:
            """Among all of the support. They name the thing, in whatever language they are told."""
            if episode.candidates != self.candidates:
                return None
            return self._nearest(episode.query[0].picture.index)

        def _find_nearest(self, query: int) -> tuple[str, str]:
            others = self._others(self._query_of[query])
            return nearest(self.queries.rows[query], self._rows[others], [self._labels[i] for i in others])

        def _rank(self, query: int) -> np.ndarray:
            """Places of the support pictures that are not the query, the most like it last."""
            others = self._others(self._query_of[query])
            return others[most_similar(self.queries.rows[query], self._rows[others], len(others))]
