"""True names: images with their names in one language. Only the prompt tells which language."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.image_set import ImageSet, LabelledImage
from flamingo_jax.tasks import game
from flamingo_jax.tasks.episode import Episode, Pool
from flamingo_jax.tasks.nearest import most_similar, nearest, pooled

OTHER_THINGS = 4  # Their names in all languages are candidates too, when answers are 'language'.


class Names(game.Game):
    """True names of images in one language."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Images with their names in one language."""

        languages: tuple[str, ...] = ('en',)
        # Probability that a sequence shows images by others that are most similar to its last one, as RICES does.
        # They may not show its thing, so that its name cannot always be taken from them. Needs features.
        similar: float = 0.0
        # Probability that another sequence repeats a few concepts. Above 0, a set may have fewer concepts than images
        # are shown; all its sequences then repeat them.
        repeats: float = 0.0

        def open(self, images: ImageSet, shots: int) -> None:
            """Takes the concepts that have a name in each language. One for each image, or `repeats`."""
            super().open(images, shots)
            self.require_names(self.languages)
            self.named = {
                language: [
                    concept
                    for concept in self.concepts
                    if any(language in image.names for image in images.by_concept[concept])
                ]
                for language in dict.fromkeys(self.languages)  # One may be there several times, to come more often.
            }
            for language, concepts in self.named.items():
                needed = min(shots, 2) if self.repeats else shots
                if len(concepts) < needed:
                    raise UserError(
                        f'Sequences of {shots} images need {needed} concepts, but the image set has '
                        f'{len(concepts)} concepts with a name in {language!r}. Give more things'
                        + ('.' if self.repeats else ", reduce the data set's `shots`, or set the game's `repeats`.")
                    )
            if self.similar:
                self._styles = np.array([image.style for image in images.images])
                if len(np.unique(self._styles)) < 2 or images.blank.dtype == np.uint8:
                    raise UserError(
                        'Similar images are found by their features, among those by others. Give `features` and at '
                        'least two styles, or `similar=0`.'
                    )
                self._rows = np.stack([pooled(images.frames(image)) for image in images.images])
                self._place = {image.index: i for i, image in enumerate(images.images)}

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """Images with true names in one language. Those whose own is missing or held out are left out."""
            language = self.languages[rng.integers(len(self.languages))]
            named = self.named[language]
            shown = self._with_similar if self.similar and rng.random() < self.similar else self._at_random
            chunks = []
            for image in shown(rng, named):
                if language not in image.names or language in image.heldout_languages:
                    continue
                label = f' {image.names[language]}'
                chunks.append(Chunk(self.seen(rng, image), (self.prompt, label), (0.0, 1.0)))
            return chunks

        def _at_random(self, rng: np.random.Generator, concepts: Sequence[str]) -> Iterator[LabelledImage]:
            """Images of different concepts, or of a few that come again."""
            few = self.shots
            if rng.random() < self.repeats and self.shots > 1:
                few = int(rng.integers(min(2, self.shots - 1), self.shots))
            few = min(few, len(concepts))
            chosen, style = rng.choice(len(concepts), few, replace=False), None
            for i in chosen if few == self.shots else rng.choice(chosen, self.shots):
                image = self.of_concept(rng, concepts[i], style)
                style = image.style
                yield image

        def _with_similar(self, rng: np.random.Generator, concepts: Sequence[str]) -> Iterator[LabelledImage]:
            """An image, after those most similar to it, by one other artist or by all others; the nearest last."""
            last = self.of_concept(rng, concepts[int(rng.integers(len(concepts)))], None)
            others = np.flatnonzero(self._styles != last.style)
            if rng.random() < 0.5:
                others = np.flatnonzero(self._styles == self._styles[rng.choice(others)])
            row = self._rows[self._place[last.index]]
            for i in others[most_similar(row, self._rows[others], self.shots - 1)]:
                yield self.images.images[i]
            yield last

    @dataclasses.dataclass
    class Episodes(game.Episodes):
        """The name of an image.

        Names are those of the support's images: a stamp says `A hammer`, a drawing `hammer`.

        For 'language', the candidates are the names of the query and of some other things in all languages. All names
        in the language of the prompt are right.
        """

        language: str = 'en'
        heldout: bool = False  # True asks for the names that training never showed, False for the others.

        answers = ('ranked', 'open-ended', 'language')
        retrieval = True

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Finds the images that have a name. The query's concept must be in the support, which gives its name."""
            super().open(queries, support, shots, answers)
            images = support.images.images
            self._names = {p.concept: p.names for p in reversed(images) if self.language in p.names}

            def kept(pool: Pool, heldout: bool) -> list[LabelledImage]:
                named = [p for p in pool.images.images if p.concept in self._names]
                return [p for p in named if (self.language in p.heldout_languages) == heldout]

            self.asked, self.named = kept(queries, self.heldout), kept(support, False)
            if not self.asked or not self.named:
                raise UserError(
                    f'there are {len(self.asked)} images to ask about that show what the support shows, and '
                    f'{len(self.named)} images in the support with a name in {self.language!r} that is '
                    f'{"held out" if self.heldout else "shown in training"}. Change language, heldout, styles or split.'
                )
            self._indices = np.array([p.index for p in self.named])
            least = min(len(self.places_without(self._indices, query)) for query in self.asked)
            self.require(least, f'images that have a name in {self.language!r}')
            if 'language' in answers and len(self._names) <= OTHER_THINGS:
                raise UserError(
                    f"answers 'language' need {OTHER_THINGS + 1} things with names, but the support shows only "
                    f'{len(self._names)}. Use a larger support, or other answers.'
                )
            self._labels = [self._name(image) for image in self.named]
            # The same query is asked at each number of shots and kind of answer.
            self._ranked, self._nearest = functools.cache(self._rank), functools.cache(self._find_nearest)
            self._concepts = sorted(self._names)
            self._query_of = {image.index: image for image in self.asked}
            self.candidates = tuple(sorted({names[self.language] for names in self._names.values()}))

        @functools.cached_property
        def _rows(self) -> np.ndarray:
            return np.stack([self.support.rows[p.index] for p in self.named])

        def _name(self, image: LabelledImage) -> str:
            return self._names[image.concept][self.language]

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` named images, then another."""
            query = self.asked[rng.integers(len(self.asked))]
            others = self.places_without(self._indices, query)
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
            """Searches in all of the support. The answer names the thing in the language of the prompt."""
            if episode.candidates != self.candidates:
                return None
            return self._nearest(episode.query[0].image.index)

        def _find_nearest(self, query: int) -> tuple[str, str]:
            others = self.places_without(self._indices, self._query_of[query])
            return nearest(self.queries.rows[query], self._rows[others], [self._labels[i] for i in others])

        def _rank(self, query: int) -> np.ndarray:
            """Indices of the support images that are not the query, the most similar last."""
            others = self.places_without(self._indices, self._query_of[query])
            return others[most_similar(self.queries.rows[query], self._rows[others], len(others))]
