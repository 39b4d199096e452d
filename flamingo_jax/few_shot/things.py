"""Things by their names: code for all games whose questions name a thing, or ask for its name.

Two things with a word in common are never alternatives, since both names may be right: a `toy dog` may be a `dog`.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.few_shot import game
from flamingo_jax.few_shot.episode import Pool
from flamingo_jax.few_shot.kinds import with_article
from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet


def english_names(pictures: Sequence[Picture]) -> dict[str, str]:
    """Concept -> English name."""
    return {p.concept: p.names['en'] for p in reversed(pictures) if 'en' in p.names}


class Things:
    """The pictures of things that have a name, and which things a question may confuse.

    Attributes:
      names: concept -> name.
      pictures: those of the concepts that have a name.
      by_concept: the same, by concept.
      fewest: each thing has at least so many others that a question may confuse it with.
    """

    def __init__(self, pictures: Sequence[Picture], names: Mapping[str, str]):
        """ValueError: nothing has a name, or some thing has a word in common with every other."""
        self.names, self.pictures = names, [picture for picture in pictures if picture.concept in names]
        if not self.pictures:
            raise UserError('no picture to ask about shows a thing that has a name. Change styles or split.')
        self.by_concept: dict[str, list[Picture]] = {}
        self._alike: dict[str, set[str]] = {}  # Subcategory -> its concepts.
        for picture in self.pictures:
            self.by_concept.setdefault(picture.concept, []).append(picture)
            self._alike.setdefault(picture.subcategory, set()).add(picture.concept)
        self._words = {concept: frozenset(names[concept].lower().split()) for concept in sorted(self.by_concept)}
        others = {concept: len(self._others(concept, self._words)) for concept in self._words}
        self.fewest = min(others.values())
        if alone := [names[concept] for concept, number in others.items() if not number]:
            raise UserError(f'no other thing can be asked about where a picture shows {alone}. Use more pictures.')

    def other(self, picture: Picture, rng: np.random.Generator) -> str:
        """The concept of another thing, half of the time of the same subcategory, if there is one."""
        alike = self._others(picture.concept, sorted(self._alike[picture.subcategory]))
        others = alike if alike and rng.random() < 0.5 else self._others(picture.concept, self._words)
        return others[rng.integers(len(others))]

    def question(self, form: str, picture: Picture, rng: np.random.Generator) -> tuple[str, str]:
        """`form` about a picture, with its answer, which is yes half of the time."""
        yes = rng.random() < 0.5
        concept = picture.concept if yes else self.other(picture, rng)
        return form.format(with_article(self.names[concept])), 'yes' if yes else 'no'

    def _others(self, concept: str, among: Iterable[str]) -> list[str]:
        """Those that have no word in common with it: a `toy dog` may be a `dog`."""
        mine = self._words[concept]
        return [other for other in among if mine.isdisjoint(self._words[other])]


@dataclasses.dataclass
class Sequences(game.Sequences):
    """Training sequences about things that have an English name."""

    def open(self, pictures: PictureSet, shots: int) -> None:
        """Takes the things that have an English name."""
        super().open(pictures, shots)
        self.things = Things(pictures.pictures, english_names(pictures.pictures))
        self.concepts = sorted(self.things.by_concept)


@dataclasses.dataclass
class Episodes(game.Episodes):
    """Questions about things. Their names are those of the support's pictures."""

    def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
        """Finds the pictures of things that the support names."""
        super().open(queries, support, shots, answers)
        names = english_names(support.pictures.pictures)
        self.asked, self.shown = (Things(pool.pictures.pictures, names) for pool in (queries, support))
