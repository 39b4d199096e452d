"""Things by their names: code for all games whose questions name a thing, or ask for its name.

Two things with a word in common are never alternatives, since both names may be right: a `toy dog` may be a `dog`.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.sources.image_set import ImageSet, LabelledImage
from flamingo_jax.tasks import game
from flamingo_jax.tasks.episode import Pool
from flamingo_jax.tasks.kinds import with_article


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
        yes = rng.random() < 0.5
        concept = image.concept if yes else self.other(image, rng)
        return form.format(with_article(self.names[concept])), 'yes' if yes else 'no'

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


@dataclasses.dataclass
class Episodes(game.Episodes):
    """Questions about things. Their names are those of the support's images."""

    def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
        """Finds the images of things that the support names."""
        super().open(queries, support, shots, answers)
        names = english_names(support.images.images)
        self.asked, self.shown = (Things(pool.images.images, names) for pool in (queries, support))
