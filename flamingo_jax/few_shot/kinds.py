"""What kind of thing a picture shows, and questions about that: `is it an animal?`, `which is a plant?`.

A picture set has subcategories (`animal-mammal`, `food-fruit`); which word each of them is asked by, if any, is said by the
config: `{'animal': 'animal', 'food': 'food'}`, from the beginning of a subcategory to its word.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet

# How the questions of `of_two` begin.
OF_TWO = ('which is ', 'what kind is the ')
UNCOUNTED = ('food', 'sport')  # No article stands before these words.


def kind_of(picture: Picture, kinds: Mapping[str, str]) -> str | None:
    """The word for what kind of thing a picture shows, None where there is none; the longest beginning decides."""
    begins = [begin for begin in kinds if picture.subcategory.startswith(begin)]
    return kinds[max(begins, key=len)] if begins else None


def by_kind(pictures: PictureSet, kinds: Mapping[str, str]) -> dict[str, list[Picture]]:
    """Kind -> its pictures. Raises ValueError if there are fewer than two kinds: nothing could be asked."""
    found: dict[str, list[Picture]] = {}
    for picture in pictures.pictures:
        if kind := kind_of(picture, kinds):
            found.setdefault(kind, []).append(picture)
    if len(found) < 2:
        raise ValueError(f'Questions need pictures of two kinds at least; these are of {sorted(found)}. Set `kinds`.')
    return dict(sorted(found.items()))


def draw(rng: np.random.Generator, by_kind: Mapping[str, Sequence[Picture]]) -> tuple[str, Picture]:
    """A kind, all equally often, and one of its pictures."""
    kind = list(by_kind)[rng.integers(len(by_kind))]
    return kind, by_kind[kind][rng.integers(len(by_kind[kind]))]


def is_it(kind: str, kinds: Sequence[str], rng: np.random.Generator) -> tuple[str, str]:
    """A question about something of this kind, with its answer, as often yes as no."""
    if rng.random() < 0.5:
        return f'is it {with_article(kind)}?', 'yes'
    others = [other for other in kinds if other != kind]
    return f'is it {with_article(others[rng.integers(len(others))])}?', 'no'


def of_two(kinds: tuple[str, str], rng: np.random.Generator) -> tuple[str, str]:
    """A question about the first or the second of two things of different kinds, with its answer."""
    which = int(rng.integers(2))
    place = ('first', 'second')[which]
    if rng.random() < 0.5:
        return f'{OF_TWO[0]}{with_article(kinds[which])}?', place
    return f'{OF_TWO[1]}{place}?', kinds[which]


def asked(question: str) -> str:
    """How a prompt asks: ` Question: is it an animal? Answer:`."""
    return f' Question: {question} Answer:'


def with_article(kind: str) -> str:
    """`an animal`, `a tool`, `food`."""
    article = '' if kind in UNCOUNTED else 'an ' if kind[0] in 'aeiou' else 'a '
    return article + kind
