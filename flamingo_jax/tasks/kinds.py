"""Kinds: images with the word for the kind of thing that they show; and code for all games about kinds.

An image set has subcategories (`animal-mammal`, `food-fruit`). The config maps the beginning of a subcategory to the
word for its kind: `{'animal': 'animal', 'food': 'food'}`. Other subcategories are not asked about.

A question must have one right answer, but a thing can be of two kinds: a tomato is a food and a plant. Such kinds
(`MAY_BE_BOTH`) are never alternatives: no question asks whether a tomato is a plant; no tomato is shown with a flower
and `which is a plant?`; and `plant` is not a candidate for the kind of a tomato. The rule is about kinds, not things,
since no list says which foods are plants.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.image_set import ImageSet, LabelledImage
from flamingo_jax.tasks import game
from flamingo_jax.tasks.episode import Episode, Pool
from flamingo_jax.tasks.nearest import nearest

UNCOUNTED = ('food', 'sport')  # No article stands before these words.
MAY_BE_BOTH = {frozenset(pair) for pair in (('food', 'plant'), ('sport', 'garment'), ('heart', 'body part'))}


def exclude(kind: str, other: str) -> bool:
    """Whether nothing is of both kinds."""
    return kind != other and frozenset((kind, other)) not in MAY_BE_BOTH


def kind_of(image: LabelledImage, kinds: Mapping[str, str]) -> str | None:
    """The word for an image's kind, or None if its subcategory has no word; the longest beginning decides."""
    begins = [begin for begin in kinds if image.subcategory.startswith(begin)]
    return kinds[max(begins, key=len)] if begins else None


def by_kind(images: ImageSet, kinds: Mapping[str, str]) -> dict[str, list[LabelledImage]]:
    """Kind -> its images. ValueError if a kind excludes no other, so that nothing can be asked about it."""
    found: dict[str, list[LabelledImage]] = {}
    for image in images.images:
        if kind := kind_of(image, kinds):
            found.setdefault(kind, []).append(image)
    if len(found) < 2 or not all(any(exclude(kind, other) for other in found) for kind in found):
        raise UserError(
            'Questions need images of at least two kinds that exclude each other; these images are of '
            f'{sorted(found)}. Set `kinds`.'
        )
    return dict(sorted(found.items()))


def draw(rng: np.random.Generator, by_kind: Mapping[str, Sequence[LabelledImage]]) -> tuple[str, LabelledImage]:
    """A random kind, all equally often, and one of its images."""
    kind = list(by_kind)[int(rng.integers(len(by_kind)))]
    return kind, by_kind[kind][int(rng.integers(len(by_kind[kind])))]


def as_question(question: str) -> str:
    """How a prompt asks: ` Question: is it an animal? Answer:`."""
    return f' Question: {question} Answer:'


def with_article(kind: str) -> str:
    """`an animal`, `a tool`, `food`.

    The first letter decides, not the sound: `a hourglass`. The published models were trained on such questions.
    """
    article = '' if kind in UNCOUNTED else 'an ' if kind[0] in 'aeiou' else 'a '
    return article + kind


class Kinds(game.Game):
    """What kind of thing an image shows."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Images with the word for their kind."""

        kinds: dict[str, str] = dataclasses.field(default_factory=dict)  # Beginning of a subcategory -> word.

        def open(self, images: ImageSet, shots: int) -> None:
            """Images by kind."""
            super().open(images, shots)
            self.of_kind = by_kind(images, self.kinds)

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """The kinds equally often."""
            drawn = [draw(rng, self.of_kind) for _ in range(self.shots)]
            return [Chunk(self.seen(rng, image), (self.prompt, f' {kind}'), (0.0, 1.0)) for kind, image in drawn]

    @dataclasses.dataclass
    class Episodes(game.Episodes):
        """What kind of thing an image shows, the kinds equally often."""

        kinds: dict[str, str] = dataclasses.field(default_factory=dict)  # As in training.

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Sorts images by kind.

            Without the query, there must be one of each kind, and as many in all as shots.
            """
            super().open(queries, support, shots, answers)
            self.asked, self.shown = by_kind(queries.images, self.kinds), by_kind(support.images, self.kinds)
            rows = [(kind, image) for kind, of in self.shown.items() for image in of]
            self._labels = [kind for kind, _ in rows]
            self._indices = np.array([image.index for _, image in rows])
            self._rows = np.stack([support.rows[image.index] for _, image in rows])
            if not shots:
                return
            every = [image for of in self.asked.values() for image in of]
            # The query is at most one image of a kind.
            beside = {kind: min(len(self.without(of, [query])) for query in every) for kind, of in self.shown.items()}
            if empty := sorted(kind for kind, number in beside.items() if not number):
                raise UserError(
                    f'the kinds {empty} have no image besides the query to show as an example. Use more styles or '
                    'another split for the support.'
                )
            self.require(
                min(len(self.without([p for _, p in rows], [query])) for query in every), 'images of some kind'
            )

        def example_of(self, rng: np.random.Generator, *shown: LabelledImage) -> tuple[str, LabelledImage]:
            """A kind and an image of the support that is not among those shown."""
            kind = list(self.shown)[rng.integers(len(self.shown))]
            of = self.without(self.shown[kind], shown)
            return kind, of[rng.integers(len(of))]

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` images with their kinds, then another."""
            kind, query = draw(rng, self.asked)
            drawn = [self.example_of(rng, query) for _ in range(shots)]
            candidates = tuple(other for other in self.asked if other == kind or exclude(kind, other))
            shown = tuple(self.example(image, label) for label, image in drawn)
            return Episode(shown, (self.query(query),), kind, candidates)

        def nearest(self, episode: Episode) -> tuple[str, str] | None:
            """Searches in all images of the support that are of a candidate's kind."""
            query = episode.query[-1].image
            return self.nearest_kind(query, episode.candidates)

        def nearest_kind(self, query: LabelledImage, kinds: Sequence[str]) -> tuple[str, str]:
            """The kinds of the nearest neighbour and of the nearest centroid, among these kinds."""
            found = [i for i in self.places_without(self._indices, query) if self._labels[i] in kinds]
            return nearest(self.queries.rows[query.index], self._rows[found], [self._labels[i] for i in found])
