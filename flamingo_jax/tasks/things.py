"""Things by their names: what games ask about names, as `kinds.py` has it of kinds.

Two things with a word in common are never alternatives, since both names may be right: a `toy dog` may be a `dog`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import Frames
from flamingo_jax.inputs.sources.image_set import ImageSet, LabelledImage
from flamingo_jax.tasks import game
from flamingo_jax.tasks.episode import Pool
from flamingo_jax.tasks.kinds import yes_or_no


def english_names(images: Sequence[LabelledImage]) -> dict[str, str]:
    """Concept -> English name."""
    return {p.concept: p.names['en'] for p in reversed(images) if 'en' in p.names}


class Things:
    """The images of things that have a name, and which things a question may confuse.

    Attributes:
      names: concept -> name.
      images: those of the concepts that have a name.
      by_concept: the same, by concept.
      fewest: each thing has at least so many others that a question may confuse it with.
    """

    def __init__(self, images: Sequence[LabelledImage], names: Mapping[str, str]):
        """ValueError: nothing has a name, or some thing has a word in common with every other."""
        self.names, self.images = names, [image for image in images if image.concept in names]
        if not self.images:
            raise UserError('no image to ask about shows a thing that has a name. Change styles or split.')
        self.by_concept: dict[str, list[LabelledImage]] = {}
        self._alike: dict[str, set[str]] = {}  # Subcategory -> its concepts.
        for image in self.images:
            self.by_concept.setdefault(image.concept, []).append(image)
            self._alike.setdefault(image.subcategory, set()).add(image.concept)
        self._words = {concept: frozenset(names[concept].lower().split()) for concept in sorted(self.by_concept)}
        others = {concept: len(self._others(concept, self._words)) for concept in self._words}
        self.fewest = min(others.values())
        if alone := [names[concept] for concept, number in others.items() if not number]:
            raise UserError(f'no other thing can be asked about where an image shows {alone}. Use more images.')

    def other(self, image: LabelledImage, rng: np.random.Generator) -> str:
        """The concept of another thing, half of the time of the same subcategory, if there is one."""
        alike = self._others(image.concept, sorted(self._alike[image.subcategory]))
        others = alike if alike and rng.random() < 0.5 else self._others(image.concept, self._words)
        return others[rng.integers(len(others))]

    def question(self, form: str, image: LabelledImage, rng: np.random.Generator) -> tuple[str, str]:
        """`form` about an image, with its answer, which is yes half of the time."""
        return yes_or_no(form, self.names[image.concept], lambda: self.names[self.other(image, rng)], rng)

    def _others(self, concept: str, among: Iterable[str]) -> list[str]:
        """Those that have no word in common with it: a `toy dog` may be a `dog`."""
        mine = self._words[concept]
        return [other for other in among if mine.isdisjoint(self._words[other])]


@dataclasses.dataclass
class Sequences(game.Sequences):
    """Training sequences about things that have an English name."""

    def open(self, images: ImageSet, shots: int) -> None:
        """Takes the things that have an English name."""
        super().open(images, shots)
        self.things = Things(images.images, english_names(images.images))
        self.concepts = sorted(self.things.by_concept)

    def label(self, image: LabelledImage) -> str:
        """Its name."""
        return self.things.names[image.concept]

    def asked(self, rng: np.random.Generator, forms: Sequence[str]) -> tuple[Callable[[], Frames], str, str]:
        """The view of an image, and a question in one of the forms with its answer; the things equally often."""
        image = self._draw(rng)
        question, answer = self.things.question(forms[int(rng.integers(len(forms)))], image, rng)
        return self.seen(rng, image), question, answer

    def pair(self, rng: np.random.Generator) -> Iterator[LabelledImage]:
        """Two images of different things, of different styles if there are such."""
        first = self._draw(rng)
        second = self.of_concept(rng, self.things.other(first, rng), first.style)
        yield from (first, second)

    def _draw(self, rng: np.random.Generator) -> LabelledImage:
        return self.of_concept(rng, self.concepts[rng.integers(len(self.concepts))], None)


@dataclasses.dataclass
class Episodes(game.Episodes):
    """Questions about things. Their names are those of the support's images."""

    def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
        """Finds the images of things that the support names."""
        super().open(queries, support, shots, answers)
        names = english_names(support.images.images)
        self.asked, self.shown = (Things(pool.images.images, names) for pool in (queries, support))
        shown = {image.index for image in self.shown.images}
        both = self.one_split and any(image.index in shown for image in self.asked.images)
        self.require(len(self.shown.images) - both, 'images with a name')

    def require_pairs(self) -> None:
        """ValueError unless there are as many pairs as examples, without the query's two images."""
        self.require((len(self.shown.images) - 2 * self.one_split) // 2, 'pairs of images with a name')
        # Else an example might never find a second thing.
        if self.shots and self.one_split and self.shown.fewest < 3:
            raise UserError(
                f'some thing has only {self.shown.fewest} others with no word in common, which the query may show '
                'both, so that no example can show one. Use more images, or another split for the support.'
            )

    def label(self, image: LabelledImage) -> str:
        """Its name."""
        return self.asked.names[image.concept]

    def draw(self, rng: np.random.Generator) -> LabelledImage:
        """An image to ask about, all equally often."""
        return self.asked.images[rng.integers(len(self.asked.images))]

    def examples(self, rng: np.random.Generator, query: LabelledImage, shots: int) -> Iterator[LabelledImage]:
        """Different images of the support, other than the query."""
        others = self.without(self.shown.images, [query])
        for i in rng.choice(len(others), shots, replace=False):
            yield others[i]

    def yes_or_no(self, form: str, image: LabelledImage, rng: np.random.Generator, asked: bool) -> tuple[str, str]:
        """A question about an image to ask about, or of the support, with its answer."""
        return (self.asked if asked else self.shown).question(form, image, rng)

    def pairs(self, rng: np.random.Generator, shots: int) -> Iterator[tuple[bool, list[LabelledImage]]]:
        """Pairs of different things, and whether it is the one to ask about, which is the first."""
        query = self._pair(rng, self.asked, ())
        yield True, query
        for _ in range(shots):
            yield False, self._pair(rng, self.shown, query)

    def nearest_labels(self, query: LabelledImage) -> tuple[str, str] | None:
        """None: most names are not among those of the support."""

    def _pair(self, rng: np.random.Generator, among: Things, shown: Sequence[LabelledImage]) -> list[LabelledImage]:
        free = self.without(among.images, shown)
        first = free[rng.integers(len(free))]
        of: list[LabelledImage] = []
        while not of:  # All images of the other thing may be shown elsewhere.
            of = self.without(among.by_concept[among.other(first, rng)], shown)
        return [first, of[rng.integers(len(of))]]
