"""Few-shot tasks that ask a question about a picture, or about one of two, and the one that asks how a clip plays."""

import dataclasses

import numpy as np

from flamingo_jax.evaluation import rices
from flamingo_jax.evaluation.task import Episode, Part, Task
from flamingo_jax.few_shot import kinds
from flamingo_jax.few_shot.sequences import DIRECTIONS
from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet


class Kinds(Task):
    """What kind of thing a picture shows, the kinds equally often."""

    def prepare(self) -> None:
        """Pictures by kind."""
        self.queries = kinds.by_kind(self.query_set, self.config.kinds)
        self.supports = kinds.by_kind(self.support_set, self.config.kinds)
        self.kinds = tuple(self.queries)
        rows = [(kind, p) for kind, of in self.supports.items() for p in of]
        self._labels = [kind for kind, _ in rows]
        self._indices = np.array([p.index for _, p in rows])
        self._rows = np.stack([self.support_rows[p.index] for _, p in rows])

    def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
        """`shots` pictures with their kinds, then another."""
        kind, query = kinds.draw(rng, self.queries)
        parts = [
            self.example(picture, label) for label, picture in (kinds.draw(rng, self.supports) for _ in range(shots))
        ]
        return Episode((*parts, self.query(query)), kind, self.kinds)

    def nearest(self, episode: Episode) -> tuple[str, str] | None:
        """Among all of the support."""
        query = episode.parts[-1].picture
        others = self.others(self._indices, query)
        return rices.nearest(self.query_rows[query.index], self._rows[others], [self._labels[i] for i in others])


class YesOrNo(Kinds):
    """Whether a picture shows a kind of thing."""

    def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
        """`shots` pictures with a question and its answer each, then another."""
        kind, query = kinds.draw(rng, self.queries)
        question, truth = kinds.is_it(kind, self.kinds, rng)
        parts = []
        for _ in range(shots):
            of, picture = kinds.draw(rng, self.supports)
            asked, answer = kinds.is_it(of, self.kinds, rng)
            parts.append(Part(picture, self.support_set, f'{kinds.asked(asked)} {answer}'))
        return Episode((*parts, Part(query, self.query_set, kinds.asked(question))), truth, ('yes', 'no'))

    def nearest(self, episode: Episode) -> tuple[str, str] | None:
        """Whether the kind that they find is the one asked for."""
        found = super().nearest(episode)
        return tuple('yes' if f' {kinds.with_article(kind)}?' in episode.parts[-1].text else 'no' for kind in found)


class Which(Kinds):
    """A question about one of two pictures of different kinds."""

    def prepare(self) -> None:
        """Pictures by kind, and a beginning that some question has: others would be drawn for ever."""
        super().prepare()
        if not any(begin.startswith(self.config.questions) for begin in kinds.OF_TWO):
            raise ValueError(
                f'Task {self.name}: `questions` begins one of {kinds.OF_TWO}, not {self.config.questions!r}.'
            )

    def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
        """`shots` pairs with question and answer, then another pair."""
        parts: list[Part] = []
        for _ in range(shots):
            shown, question, answer, _ = self._pair(rng, self.support_set, self.supports)
            parts += [*shown, Part(None, self.support_set, f'{kinds.asked(question)} {answer}')]
        shown, question, truth, candidates = self._pair(rng, self.query_set, self.queries)
        return Episode((*parts, *shown, Part(None, self.query_set, kinds.asked(question))), truth, candidates)

    def nearest(self, episode: Episode) -> None:
        """They know no first and second."""

    def _pair(self, rng, of: PictureSet, by_kind: dict[str, list[Picture]]):
        two = [list(by_kind)[i] for i in rng.choice(len(by_kind), 2, replace=False)]
        shown = [
            Part(by_kind[kind][rng.integers(len(by_kind[kind]))], of, f' {place}')
            for kind, place in zip(two, ('first', 'second'), strict=True)
        ]
        question, answer = kinds.of_two(tuple(two), rng)
        while not question.startswith(self.config.questions):
            question, answer = kinds.of_two(tuple(two), rng)
        return shown, question, answer, tuple(two) if answer in two else ('first', 'second')


class Questions(Task):
    """The pictures' own questions; a guess is one of the answers that such questions have."""

    def prepare(self) -> None:
        """Pictures by what may be asked of them."""
        c = self.config

        def asked(pictures: PictureSet) -> list[tuple[Picture, str, str]]:
            every = [(p, q, a) for p in pictures.pictures for q, a in p.questions if q.startswith(c.questions)]
            if not every:
                raise ValueError(f'Task {self.name}: no picture has a question that begins with {c.questions!r}.')
            return every

        self.queries, self.supports = asked(self.query_set), asked(self.support_set)
        self._indices = np.array([picture.index for picture, _, _ in self.supports])
        answers = [answer for _, _, answer in self.queries]
        self.candidates = tuple(sorted(set(answers)))
        self.majority = max(self.candidates, key=answers.count)

    def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
        """`shots` pictures with a question and its answer each, then another."""
        picture, question, truth = self.queries[rng.integers(len(self.queries))]
        others = self.others(self._indices, picture)
        chosen = [self.supports[i] for i in others[rng.choice(len(others), shots, replace=False)]]
        parts = [Part(p, self.support_set, f'{kinds.asked(asked)} {answer}') for p, asked, answer in chosen]
        return Episode((*parts, Part(picture, self.query_set, kinds.asked(question))), truth, self.candidates)


class Direction(Task):
    """Whether a clip plays forward or backward."""

    def prepare(self) -> None:
        """Clips only."""
        if self.query_set.blank.shape[0] < 2:
            raise ValueError(f'Task {self.name}: only clips have a direction; set `frames` of the evaluation.')

    def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
        """`shots` clips with their direction, then another."""

        def clip(pictures: PictureSet) -> tuple[Picture, str]:
            backward = int(rng.integers(2))
            picture = pictures.pictures[rng.integers(len(pictures.pictures))]
            return dataclasses.replace(picture, backward=bool(backward)), DIRECTIONS[backward]

        parts = [self.example(*clip(self.support_set)) for _ in range(shots)]
        query, truth = clip(self.query_set)
        return Episode((*parts, self.query(query)), truth, DIRECTIONS)
