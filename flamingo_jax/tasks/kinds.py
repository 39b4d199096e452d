"""Kinds: images with the word for the kind of thing that they show; and what other games ask about kinds.

An image set has subcategories (`animal-mammal`, `food-fruit`). The config maps the beginning of a subcategory to the
word for its kind: `{'animal': 'animal', 'food': 'food'}`. Other subcategories are not asked about.

A question must have one right answer, but a thing can be of two kinds: a tomato is a food and a plant. Such kinds
(`MAY_BE_BOTH`) are never alternatives: no question asks whether a tomato is a plant; no tomato is shown with a flower
and `which is a plant?`; and `plant` is not a candidate for the kind of a tomato. The rule is about kinds, not things,
since no list says which foods are plants.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import Frames
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


def _kind(image: LabelledImage, kinds: Mapping[str, str]) -> str:
    """The kind of an image that has one."""
    kind = kind_of(image, kinds)
    assert kind is not None
    return kind


def by_kind(images: ImageSet, kinds: Mapping[str, str]) -> dict[str, list[LabelledImage]]:
    """Kind -> its images. ValueError if a kind excludes no other, so that nothing can be asked about it."""
    of_kind: dict[str, list[LabelledImage]] = {}
    for image in images.images:
        if kind := kind_of(image, kinds):
            of_kind.setdefault(kind, []).append(image)
    if len(of_kind) < 2 or not all(any(exclude(kind, other) for other in of_kind) for kind in of_kind):
        raise UserError(
            'Questions need images of at least two kinds that exclude each other; these images are of '
            f'{sorted(of_kind)}. Set `kinds`.'
        )
    return dict(sorted(of_kind.items()))


def draw(rng: np.random.Generator, by_kind: Mapping[str, Sequence[LabelledImage]]) -> tuple[str, LabelledImage]:
    """A random kind, all equally often, and one of its images."""
    kind = list(by_kind)[int(rng.integers(len(by_kind)))]
    return kind, by_kind[kind][int(rng.integers(len(by_kind[kind])))]


def two_kinds(rng: np.random.Generator, kinds: Sequence[str]) -> tuple[str, str]:
    """Two kinds that exclude each other."""
    while True:
        first, second = (kinds[int(i)] for i in rng.choice(len(kinds), 2, replace=False))
        if exclude(first, second):
            return first, second


def yes_or_no(form: str, label: str, other: Callable[[], str], rng: np.random.Generator) -> tuple[str, str]:
    """The question `form` about a thing with this label, or half of the time about an`other`, and its answer."""
    if rng.random() < 0.5:
        return form.format(with_article(label)), 'yes'
    return form.format(with_article(other())), 'no'


def _other(kind: str, kinds: Sequence[str], rng: np.random.Generator) -> str:
    others = [other for other in kinds if exclude(kind, other)]
    return others[rng.integers(len(others))]


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

        def label(self, image: LabelledImage) -> str:
            """Its kind."""
            return _kind(image, self.kinds)

        def asked(self, rng: np.random.Generator, forms: Sequence[str]) -> tuple[Callable[[], Frames], str, str]:
            """The view of an image, and a question in one of the forms with its answer; the kinds equally often."""
            kind, image = draw(rng, self.of_kind)
            seen, form = self.seen(rng, image), forms[int(rng.integers(len(forms)))]
            return seen, *yes_or_no(form, kind, lambda: _other(kind, list(self.of_kind), rng), rng)

        def pair(self, rng: np.random.Generator) -> Iterator[LabelledImage]:
            """Two images of different kinds; the second is drawn when it is asked for."""
            for kind in two_kinds(rng, list(self.of_kind)):
                yield self.of_kind[kind][rng.integers(len(self.of_kind[kind]))]

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

        def require_pairs(self) -> None:
            """ValueError unless there is a pair to ask about, whatever the examples show.

            It is drawn last, from images that no example shows. An example shows at most one image of a kind.
            """
            shown = {image.index for of in self.shown.values() for image in of} if self.one_split else set()
            for kind, of in self.asked.items():
                free = sum(image.index not in shown for image in of)
                if free == 0 and len(of) <= self.shots:
                    raise UserError(
                        f'{self.shots} shots can show all {len(of)} images of {kind!r}, which leaves none for the '
                        'query. Use fewer shots, or other styles or another split for the support.'
                    )

        def label(self, image: LabelledImage) -> str:
            """Its kind."""
            return _kind(image, self.kinds)

        def draw(self, rng: np.random.Generator) -> LabelledImage:
            """An image to ask about, the kinds equally often."""
            return draw(rng, self.asked)[1]

        def examples(self, rng: np.random.Generator, query: LabelledImage, shots: int) -> Iterator[LabelledImage]:
            """Images of the support other than the query, the kinds equally often; drawn one by one."""
            for _ in range(shots):
                of = self.without(list(self.shown.values())[rng.integers(len(self.shown))], [query])
                yield of[rng.integers(len(of))]

        def yes_or_no(self, form: str, image: LabelledImage, rng: np.random.Generator, asked: bool) -> tuple[str, str]:
            """A question about an image, in examples too (not `asked`) with the kinds that are asked about."""
            kind = self.label(image)
            return yes_or_no(form, kind, lambda: _other(kind, tuple(self.asked), rng), rng)

        def pairs(self, rng: np.random.Generator, shots: int) -> Iterator[tuple[bool, list[LabelledImage]]]:
            """Pairs of different kinds, and whether it is the one to ask about, which is the last."""
            shown: list[LabelledImage] = []
            for _ in range(shots):
                pair = self._pair(rng, self.shown, ())
                shown += pair
                yield False, pair
            yield True, self._pair(rng, self.asked, shown)

        def _pair(self, rng, of_kind: Mapping[str, Sequence[LabelledImage]], shown: Sequence[LabelledImage]):
            of_two = (self.without(of_kind[kind], shown) for kind in two_kinds(rng, list(of_kind)))
            return [of[rng.integers(len(of))] for of in of_two]

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` images with their kinds, then another."""
            query = self.draw(rng)
            kind = self.label(query)
            candidates = tuple(other for other in self.asked if other == kind or exclude(kind, other))
            shown = tuple(self.example(image, self.label(image)) for image in self.examples(rng, query, shots))
            return Episode(shown, (self.query(query),), kind, candidates)

        def nearest(self, episode: Episode) -> tuple[str, str] | None:
            """Searches in all images of the support that are of a candidate's kind."""
            return self._nearest(episode.query[-1].image, episode.candidates)

        def nearest_labels(self, query: LabelledImage) -> tuple[str, str] | None:
            """The kinds of the nearest neighbour and of the nearest centroid."""
            return self._nearest(query, tuple(self.shown))

        def _nearest(self, query: LabelledImage, kinds: Sequence[str]) -> tuple[str, str]:
            places = [i for i in self.places_without(self._indices, query) if self._labels[i] in kinds]
            return nearest(self.queries.rows[query.index], self._rows[places], [self._labels[i] for i in places])
