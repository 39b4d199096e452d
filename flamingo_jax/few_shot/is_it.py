"""Is it: pictures, each with a question that names a thing, such as `is it a dog?`. Half of the answers are yes.

`YesOrNo` asks for kinds of things, which are few. Here each name is asked for. Half of the questions to which the
answer is no are about a thing of the same subcategory, such as a cat in place of a dog.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from flamingo_jax.few_shot import game
from flamingo_jax.few_shot.episode import Episode, Part, Pool
from flamingo_jax.few_shot.kinds import asked, with_article
from flamingo_jax.inputs.rows import Chunk
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
            raise ValueError('no picture to ask about shows a thing that has a name. Change styles or split.')
        self.by_concept: dict[str, list[Picture]] = {}
        self._alike: dict[str, set[str]] = {}  # Subcategory -> its concepts.
        for picture in self.pictures:
            self.by_concept.setdefault(picture.concept, []).append(picture)
            self._alike.setdefault(picture.subcategory, set()).add(picture.concept)
        self._words = {concept: frozenset(names[concept].lower().split()) for concept in sorted(self.by_concept)}
        others = {concept: len(self._others(concept, self._words)) for concept in self._words}
        self.fewest = min(others.values())
        if alone := [names[concept] for concept, number in others.items() if not number]:
            raise ValueError(f'no other thing can be asked about where a picture shows {alone}. Use more pictures.')

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


class IsIt(game.Game):
    """Whether a picture shows the thing of a name."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Pictures, each with its own question."""

        forms: tuple[str, ...] = ('is it {}?',)  # How it is asked.

        def open(self, pictures: PictureSet, shots: int) -> None:
            """Takes the things that have an English name."""
            super().open(pictures, shots)
            self.things = Things(pictures.pictures, english_names(pictures.pictures))
            self.concepts = sorted(self.things.by_concept)

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """The things equally often."""
            chunks = []
            for _ in range(self.shots):
                picture = self.of_concept(rng, self.concepts[rng.integers(len(self.concepts))], None)
                question, answer = self.things.question(self.forms[rng.integers(len(self.forms))], picture, rng)
                chunks.append(Chunk(self.seen(rng, picture), (asked(question), f' {answer}'), (0.0, 1.0)))
            return chunks

    @dataclasses.dataclass
    class Episodes(game.Episodes):
        """Whether a picture shows the thing of a name. The names are those of the support's pictures."""

        form: str = 'is it {}?'  # How it is asked.

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Finds the pictures of things that the support names."""
            super().open(queries, support, shots, answers)
            names = english_names(support.pictures.pictures)
            self.asked, self.shown = (Things(pool.pictures.pictures, names) for pool in (queries, support))
            least = min(len(self.unlike(self.shown.pictures, [query])) for query in self.asked.pictures)
            self.require(least, 'pictures with a name')

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` pictures with a question and its answer each, then another."""
            query = self.asked.pictures[rng.integers(len(self.asked.pictures))]
            question, truth = self.asked.question(self.form, query, rng)
            others = self.unlike(self.shown.pictures, [query])
            shown = []
            for i in rng.choice(len(others), shots, replace=False):
                about, answer = self.shown.question(self.form, others[i], rng)
                shown.append(Part(others[i], self.support, f'{asked(about)} {answer}'))
            return Episode(tuple(shown), (Part(query, self.queries, asked(question)),), truth, ('yes', 'no'))
