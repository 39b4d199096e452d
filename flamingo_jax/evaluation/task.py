"""A task of an evaluation: episodes of a game in tasks/, or the questions of a benchmark (benchmark.py).

A task defines what is asked (`episode`), how it is answered (`answering`, answers.py) and how it is scored (`metric`,
metrics/). This file ensures what holds for every task: examples never show the query's image, and 0-shot prompts can
have examples without images.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from ml_collections import ConfigDict

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation import published
from flamingo_jax.evaluation.answers import Answering, Compared, Generated, Ranked
from flamingo_jax.evaluation.controls import DEFAULT as DEFAULT_CONTROLS
from flamingo_jax.evaluation.controls import names_of
from flamingo_jax.evaluation.metrics import Metric, exact
from flamingo_jax.evaluation.pools import Pools, of_styles
from flamingo_jax.evaluation.rices import BY_CLIP
from flamingo_jax.tasks.episode import Episode
from flamingo_jax.tasks.game import Episodes, Game

OPEN_ENDED = 'open-ended'
BY_LENGTH = 'ranked by length'
COMPARED = 'compared'  # By two towers, see `answers.Compared`.
LEAST = dict(orders=1, clip=0, max_new_tokens=0, text_examples=0, text_examples_ranked=0)  # Of a task's numbers.


@dataclasses.dataclass
class Task:
    """The fields of every task, and its episodes."""

    shots: tuple[int, ...] = (1, 2, 4)  # Examples in the prompt; per class in n-way tasks.
    # 'ranked' by likelihood among candidates ('ranked by length' divides it by the number of tokens), 'open-ended' by
    # generation, 'compared' with the image by two towers, or the task's own kinds.
    answers: tuple[str, ...] = ('ranked',)
    # 'random': other examples for each query; 'fixed': the same for all, which are then read once; 'rices': the most
    # similar images by the model's trunk, of those drawn; 'rices by clip': by a CLIP, of all (see rices.py).
    support: tuple[str, ...] = ('random',)
    query_split: str = 'test'
    support_split: str = 'test'
    title: str = ''  # Its name in reports; '' is its name in the config.
    data: str = ''  # Folder of the data set; '' is the evaluation's.
    support_data: str = ''  # Folder of the examples, if another.
    controls: tuple[str, ...] = DEFAULT_CONTROLS  # What is asked beside the model: see controls.py. () is nothing.
    # Also ask the language model alone, which reads the name of what an image shows in the image's place.
    told: bool = False
    text_examples: int = 0  # Examples without images in 0-shot prompts for open-ended answers (paper: 2).
    text_examples_ranked: int = 0  # The same for ranked answers (paper: 0, OpenFlamingo: 2).
    max_new_tokens: int = 0  # Most tokens of an open-ended answer; 0 is the evaluation's.
    clip: int = 0  # Frames per clip, if videos are ranked clip by clip; 0 shows whole videos.
    orders: int = 1  # Random orders of the examples over which likelihoods of candidates are averaged (paper: 6).

    may_answer: ClassVar[tuple[str, ...]] = ('ranked', OPEN_ENDED)
    may_support: ClassVar[tuple[str, ...]] = ('random',)
    likelihoods: ClassVar[bool] = False  # Whether the metric needs the likelihoods of all candidates.
    metric: ClassVar[Metric] = staticmethod(exact.score)
    scored: ClassVar[bool] = True  # False if the right answers are not published.
    # Split -> the number of `questions` that are left out, and of the `files` that are missing or damaged.
    left_out: ClassVar[Mapping[str, Mapping[str, int]]] = MappingProxyType({})

    def open(self, name: str, pools: Pools) -> 'Task':
        """Opens the data and finds the possible questions.

        Raises:
          FileNotFoundError, ValueError: data are missing or wrong, there are too few images, or a setting is not
            possible. Raised before any work.
        """
        self.name = name = self.title or name
        may = dict(
            answers=(*self.may_answer, *([BY_LENGTH, COMPARED] if 'ranked' in self.may_answer else [])),
            support=self.may_support,
        )
        for field, known in may.items():
            given = getattr(self, field)
            if not given or set(given) - set(known):
                raise UserError(f'Task {name}: {field} are {given!r}. Give one or more of {known}.')
        for field, least in LEAST.items():
            if getattr(self, field) < least:
                raise UserError(f'Task {name}: {field} is {getattr(self, field)}. It must be {least} or more.')
        if not self.shots or not all(isinstance(number, int) and number >= 0 for number in self.shots):
            raise UserError(f'Task {name}: shots are {self.shots!r}. They must be one or more numbers, each 0 or more.')
        if COMPARED in self.answers and (set(self.shots) != {0} or set(self.answers) != {COMPARED}):
            raise UserError(
                f'Task {name}: two towers compare an image with texts, and see no examples. Set shots to (0,) and '
                f"answers to ('{COMPARED}',)."
            )
        try:
            self.controls = names_of(self.controls)
            with published.digests() as self.annotations:
                self.prepare(pools)
        except ValueError as error:
            raise UserError(f'Task {name}: {error}') from error
        return self

    def prepare(self, pools: Pools) -> None:
        """Opens the data; ValueError says what is wrong."""
        raise NotImplementedError

    @property
    def most(self) -> int:
        """The number of examples in the longest prompt."""
        return max(*self.shots, *map(self._bare, self.answers))

    def _bare(self, answers: str) -> int:
        """The number of examples without images in a 0-shot prompt for answers of this kind."""
        if answers == COMPARED:
            return 0
        return self.text_examples if answers == OPEN_ENDED else self.text_examples_ranked

    def number(self, episodes: int) -> int:
        """The number of episodes, if `episodes` are wanted."""
        return episodes

    def episode(self, i: int, shots: int, support: str, answers: str, seed: int) -> Episode:
        """Episode i. It depends on the arguments alone, not on the model, the process or the other episodes."""
        raise NotImplementedError

    def episodes(self, number: int, shots: int, support: str, answers: str, seed: int) -> Iterator[Episode]:
        """The first episodes. This is cheap, since no image is read."""
        bare = 0 if shots else self._bare(answers)
        for i in range(self.number(number)):
            if bare:
                like = BY_CLIP if support == BY_CLIP else 'random'  # As in OpenFlamingo, and as in the paper.
                episode = self.episode(i, bare, like, answers=answers, seed=seed)
            else:
                episode = self.episode(i, shots, support, answers=answers, seed=seed)
            shown = {part.key for part in episode.support} - {None}
            if shown & {part.key for part in episode.query}:
                raise RuntimeError(f'Task {self.name}: the examples of episode {i} show the image that it asks about.')
            if bare:
                without = tuple(dataclasses.replace(part, image=None) for part in episode.support)
                episode = dataclasses.replace(episode, support=without)
            yield episode if episode.id else dataclasses.replace(episode, id=str(i))

    def answering(self, answers: str, max_new_tokens: int, num_beams: int, length_penalty: float = 0.0) -> Answering:
        """How answers of this kind are given. The numbers are the evaluation's defaults."""
        if answers == COMPARED:
            return Compared(self.likelihoods)
        if answers == OPEN_ENDED:
            return Generated(self.max_new_tokens or max_new_tokens, num_beams, length_penalty)
        return Ranked(answers == BY_LENGTH, self.likelihoods, self.clip, self.orders)

    def read_answer(self, text: str) -> str:
        """The part of an open-ended answer that is scored."""
        return text

    def baselines(self, episode: Episode) -> dict[str, Any]:
        """Answers that need no language model, by name."""
        return {}

    def chance(self, episode: Episode) -> float | None:
        """The expected score of a guess among the candidates; None if it is not known."""
        if not episode.candidates:
            return None
        right = episode.references if isinstance(episode.references, tuple) else (episode.truth,)
        return len({*right} & {*episode.candidates}) / len(episode.candidates)

    @property
    def metric_name(self) -> str:
        """The name of its metric in metrics/."""
        return self.metric.__module__.rpartition('.')[2]

    def by_type(self, scores: Sequence[tuple[Mapping[str, str], float]]) -> str:
        """The scores of each type of question, in percent, in the lines of the set's own script; '' if it has none.

        scores: the `types` of each question, and its score.
        """
        return ''

    def results(self, answers: Mapping[str, str]) -> Any:
        """The answers by id as the benchmark's evaluation server takes them; None if it has none."""
        return None


@dataclasses.dataclass
class GameTask(Task):
    """A game on image sets."""

    query_styles: tuple[str, ...] = ()  # Styles of the query images; () is all.
    support_styles: tuple[str, ...] = ()

    def of(self, game: Episodes) -> 'GameTask':
        """The same task with this game."""
        self._game, self.may_answer = game, game.answers  # pyright: ignore[reportAttributeAccessIssue]  # Of this one alone.
        self.may_support = ('random', 'rices') if game.retrieval else ('random',)  # pyright: ignore[reportAttributeAccessIssue]  # Of this one alone.
        return self

    def prepare(self, pools: Pools) -> None:
        """Opens both splits, and lets the game find its questions."""
        queries = of_styles(pools.open(self.query_split, self.data), self.query_styles)
        support = of_styles(pools.open(self.support_split, self.support_data or self.data), self.support_styles)
        self._game.open(queries, support, self.most, self.answers)
        if self.orders > 1 and self._game.several_parts:
            raise UserError(
                f'orders is {self.orders}, but an example of this game has several images, which must stay together. '
                'Set orders to 1.'
            )

    def episode(self, i: int, shots: int, support: str, answers: str, seed: int) -> Episode:
        """A random question. Those that share an image are not independent: an image set may have few."""
        episode = self._game.episode(np.random.default_rng((seed, i)), shots, support, answers)
        asked = {str(part.image.index): None for part in episode.query if part.image is not None}
        return dataclasses.replace(episode, clusters=tuple(asked))

    def baselines(self, episode: Episode) -> dict[str, str]:
        """Nearest neighbour and centroid on the frozen features, and the most frequent answer, if the game has them."""
        guesses = {}
        if nearest := self._game.nearest(episode):
            guesses |= dict(zip(('nearest neighbour', 'nearest centroid'), nearest, strict=True))
        if self._game.majority is not None:
            guesses['majority answer'] = self._game.majority
        return guesses


def task(of: type, **fields: Any) -> ConfigDict:
    """A task for `config.tasks`, as data: its class (a game or a benchmark) and all of its fields.

    TypeError for a field that it does not have.
    """
    made = _make(of, fields)
    own = dataclasses.asdict(made._game) if isinstance(made, GameTask) else {}
    return ConfigDict(dict(asks=of, **dataclasses.asdict(made), **own))


def make(name: str, fields: dict[str, Any], pools: Pools) -> Task:
    """Opens the task that `task` describes; errors as for `Task.open`."""
    fields = dict(fields)
    return _make(fields.pop('asks'), fields).open(name, pools)


def _make(of: type, fields: dict[str, Any]) -> Task:
    if not issubclass(of, Game):
        return of(**fields)
    common = {field.name for field in dataclasses.fields(GameTask)}
    game = of.Episodes(**{key: value for key, value in fields.items() if key not in common})
    return GameTask(**{key: value for key, value in fields.items() if key in common}).of(game)
