"""Questions: pictures with a question and its answer, both from the data set."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flamingo_jax.few_shot import game
from flamingo_jax.few_shot.episode import Episode, Part, Pool
from flamingo_jax.few_shot.kinds import asked
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet


class Questions(game.Game):
    """The pictures' own questions."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Pictures, each with one of its questions.

        They are not mirrored, since a question may be about left and right.
        """

        def open(self, pictures: PictureSet, shots: int) -> None:
            """Takes the pictures that have a question."""
            super().open(pictures, shots)
            if not all(picture.questions for picture in pictures.pictures):
                raise ValueError(
                    'Sequences of questions need pictures that have questions, and this data set has '
                    'none. data/README.md says which data sets have them.'
                )

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """Any pictures."""
            chunks = []
            for i in rng.choice(len(self.pictures.pictures), self.shots):
                picture = self.pictures.pictures[i]
                question, answer = picture.questions[rng.integers(len(picture.questions))]
                seen = self.seen(rng, picture, mirrored=False)
                chunks.append(Chunk(seen, (asked(question), f' {answer}'), (0.0, 1.0)))
            return chunks

    @dataclasses.dataclass
    class Episodes(game.Episodes):
        """The pictures' own questions. Candidates are the answers that such questions have."""

        questions: str = ''  # Ask only the questions that begin so.

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Sorts pictures by their questions."""
            super().open(queries, support, shots, answers)
            self.asked, self.shown = self._asked(queries.pictures), self._asked(support.pictures)
            self._indices = np.array([picture.index for picture, _, _ in self.shown])
            least = min(len(self._others(picture)) for picture, _, _ in self.asked)
            self.require(least, 'questions about other pictures')
            truths = [answer for _, _, answer in self.asked]
            self.candidates = tuple(sorted(set(truths)))
            self.majority = max(self.candidates, key=truths.count)

        def _asked(self, pictures: PictureSet) -> list[tuple[Picture, str, str]]:
            every = [(p, q, a) for p in pictures.pictures for q, a in p.questions if q.startswith(self.questions)]
            if not every:
                raise ValueError(f'no picture has a question that begins with {self.questions!r}. Change `questions`.')
            return every

        def _others(self, query: Picture) -> np.ndarray:
            """Indices of the questions about other pictures."""
            return np.flatnonzero(self._indices != query.index) if self.one_split else np.arange(len(self._indices))

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` pictures with a question and its answer each, then another."""
            picture, question, truth = self.asked[rng.integers(len(self.asked))]
            others = self._others(picture)
            chosen = [self.shown[i] for i in others[rng.choice(len(others), shots, replace=False)]]
            shown = tuple(Part(p, self.support, f'{asked(about)} {answer}') for p, about, answer in chosen)
            return Episode(shown, (Part(picture, self.queries, asked(question)),), truth, self.candidates)
