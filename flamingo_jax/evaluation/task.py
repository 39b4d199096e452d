"""What a few-shot task is: two picture sets, and episodes drawn from them. The tasks are in `tasks.py` and `questions.py`."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from flamingo_jax.evaluation import rices
from flamingo_jax.evaluation.metrics import same_answer
from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """One task; it is evaluated at every number of shots, with every kind of support and of answer."""

    asks: str = 'words'  # One of `TASKS` (tasks.py).
    shots: tuple[int, ...] = (1, 2, 4)  # Examples in the prompt: of each class, where there are classes.
    # 'ranked' by likelihood among candidates, 'open-ended' by generation; 'language': ranked among the names that some things
    # have in all languages, of which those in the language of the prompt are right.
    answers: tuple[str, ...] = ('ranked',)
    support: tuple[str, ...] = ('random',)  # 'random', or for names 'rices'.
    query_split: str = 'test'
    query_styles: tuple[str, ...] = ()
    support_split: str = 'test'
    support_styles: tuple[str, ...] = ()
    prompt: str = ''  # Between a picture and its answer, as in training.
    ways: int = 5  # Classes of an episode of words.
    language: str = 'en'  # Of names.
    heldout: bool = False  # Ask for those names that training never showed; else for the others.
    kinds: dict[str, str] = dataclasses.field(default_factory=dict)  # As in training (few_shot/kinds.py).
    questions: str = ''  # Ask only the questions that begin so.
    controls: bool = True  # Answer again with the pictures shuffled, and without.


@dataclasses.dataclass(frozen=True)
class Part:
    """A picture, if any, and the text after it."""

    picture: Picture | None
    of: PictureSet
    text: str


@dataclasses.dataclass(frozen=True)
class Episode:
    """One question: the last part ends where the answer begins."""

    parts: tuple[Part, ...]
    truth: str
    candidates: tuple[str, ...]
    also_right: tuple[str, ...] = ()  # Candidates that count as the truth.

    def is_right(self, answer: str) -> bool:
        """Whether an answer is the truth, or counts as it."""
        return any(same_answer(answer, right) for right in (self.truth, *self.also_right))


OpenSplit = Callable[[str], tuple[PictureSet, rices.Pooled]]


class Task:
    """A task's two picture sets, and its episodes."""

    answers = ('ranked', 'open-ended')
    support = ('random',)
    majority: str | None = None  # The most frequent answer, where the score of always giving it says something.

    def __init__(self, name: str, config: TaskConfig, open_split: OpenSplit):
        """Makes a task.

        Args:
          name, config: the task.
          open_split: the name of a split -> its pictures, and a row of pooled features for each. Tasks may share what it
            returns.

        Raises:
          FileNotFoundError, ValueError: bad data, too few pictures, or a setting that makes no sense; before any work.
        """
        self.name, self.config = name, config
        for field in ('answers', 'support'):
            if bad := sorted(set(getattr(config, field)) - set(getattr(self, field))):
                raise ValueError(f'Task {name}: {field} may be {getattr(self, field)}, and not {bad}.')
        self.query_set, self.query_rows = _of_styles(*open_split(config.query_split), config.query_styles)
        self.support_set, self.support_rows = _of_styles(*open_split(config.support_split), config.support_styles)
        self.prepare()

    def prepare(self) -> None:
        """Finds what can be asked; raises ValueError if that is nothing."""

    def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
        """One episode."""
        raise NotImplementedError

    def episodes(self, number: int, shots: int, support: str, answers: str, seed: int) -> Iterator[Episode]:
        """So many episodes: the same for the same seed, whatever the model. Other shots ask the same queries.

        Cheap beside what is done with them: no picture is read, and RICES ranks the support of a query once.
        """
        for i in range(number):
            yield self.episode(np.random.default_rng((seed, i)), shots, support, answers)

    def nearest(self, episode: Episode) -> tuple[str, str] | None:
        """What nearest neighbour and nearest centroid on the frozen features would answer; None where they cannot."""

    def others(self, indices: np.ndarray, query: Picture) -> np.ndarray:
        """Places of the support pictures, of these indices in their split, that are not the query."""
        if self.config.query_split != self.config.support_split:
            return np.arange(len(indices))
        return np.flatnonzero(indices != query.index)

    def example(self, picture: Picture, label: str) -> Part:
        return Part(picture, self.support_set, f'{self.config.prompt} {label}')

    def query(self, picture: Picture) -> Part:
        return Part(picture, self.query_set, self.config.prompt)


def _of_styles(pictures: PictureSet, rows: rices.Pooled, styles: Sequence[str]):
    """The pictures of these styles, and picture's index -> pooled features."""
    return pictures.only(styles), {picture.index: row for picture, row in zip(pictures.pictures, rows, strict=True)}
