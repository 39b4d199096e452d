"""Is it: images, each with a question that names a thing, such as `is it a dog?`. Half of the answers are yes.

`YesOrNo` asks for kinds of things, which are few. Here each name is asked for. Half of the questions to which the
answer is no are about a thing of the same subcategory, such as a cat in place of a dog.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.tasks import game, things
from flamingo_jax.tasks.episode import Episode, Part, Pool
from flamingo_jax.tasks.kinds import as_question


class IsIt(game.Game):
    """Whether an image shows the thing of a name."""

    @dataclasses.dataclass
    class Sequences(things.Sequences):
        """Images, each with its own question."""

        forms: tuple[str, ...] = ('is it {}?',)  # How it is asked.

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """The things equally often."""
            chunks = []
            for _ in range(self.shots):
                image = self.of_concept(rng, self.concepts[rng.integers(len(self.concepts))], None)
                question, answer = self.things.question(self.forms[rng.integers(len(self.forms))], image, rng)
                chunks.append(Chunk(self.seen(rng, image), (as_question(question), f' {answer}'), (0.0, 1.0)))
            return chunks

    @dataclasses.dataclass
    class Episodes(things.Episodes):
        """Whether an image shows the thing of a name."""

        form: str = 'is it {}?'  # How it is asked.

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """There must be as many images as examples, without the query's."""
            super().open(queries, support, shots, answers)
            least = min(len(self.without(self.shown.images, [query])) for query in self.asked.images)
            self.require(least, 'images with a name')

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` images with a question and its answer each, then another."""
            query = self.asked.images[rng.integers(len(self.asked.images))]
            question, truth = self.asked.question(self.form, query, rng)
            others = self.without(self.shown.images, [query])
            shown = []
            for i in rng.choice(len(others), shots, replace=False):
                about, answer = self.shown.question(self.form, others[i], rng)
                shown.append(Part(others[i], self.support, f'{as_question(about)} {answer}'))
            return Episode(tuple(shown), (Part(query, self.queries, as_question(question)),), truth, ('yes', 'no'))
