"""What is asked for one row of the table, and the controls that are asked the same."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from flamingo_jax.evaluation import controls
from flamingo_jax.evaluation.answers import Answering
from flamingo_jax.evaluation.episode_prompts import Shown, frames, words
from flamingo_jax.evaluation.task import COMPARED, Task
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.tasks.episode import Episode, Part


class Control(NamedTuple):
    """The model as it is, or what is asked in its place to tell where its score comes from."""

    name: str
    responder: Pretrained
    episodes: Sequence[Episode]
    shown: Shown | None  # What stands for an image in a prompt; None is nothing.


@dataclasses.dataclass(frozen=True)
class Setting:
    """A task with one number of examples, one kind of support and of answers, and one seed."""

    task: Task
    shots: int
    support: str
    answers: str
    seed: int
    number: int  # Episodes that are wanted.
    answering: Answering  # How an answer is given.
    others: tuple[Part, ...] = ()  # Images of another set, for the control that shows them.

    @staticmethod
    def of(config: ConfigDict, task: Task, shots: int, support: str, answers: str) -> 'Setting':
        """The setting at the first seed of an evaluation's config."""
        answering = task.answering(answers, config.max_new_tokens, config.num_beams, config.length_penalty)
        others = controls.of_folder(config.other_images)
        return Setting(task, shots, support, answers, config.seed, config.episodes, answering, others)

    def __str__(self) -> str:
        return f'{self.task.name}, {self.shots} shots, {self.support}, {self.answers}'

    @property
    def controls(self) -> list[str]:
        """The names of its controls, with the model itself first: those that can be asked here."""
        task, possible = self.task, tuple(controls.CONTROLS) if self.shots else controls.WITHOUT_DEMONSTRATIONS
        possible = controls.TWO_TOWERS if self.answers == COMPARED else possible
        if not task.scored:
            return ['model']
        return ['model', *(name for name in task.controls if name in possible), *['told the names'] * task.told]

    @property
    def questions(self) -> int:
        """The number of questions: each control is asked as many as the model."""
        return self.task.number(self.number) * len(self.controls)

    def episodes(self) -> list[Episode]:
        """Its episodes. No image is read."""
        return list(self.task.episodes(self.number, self.shots, self.support, answers=self.answers, seed=self.seed))

    def control(self, name: str, model: Pretrained, episodes: Sequence[Episode]) -> Control:
        """The control of this name, on these episodes."""
        if name == 'told the names':
            return Control(name, model.language_model, episodes, words)
        if name in controls.CONTROLS:
            episodes = controls.asked_as(name, episodes, self.seed, self.others)
        return Control(name, model, episodes, frames)
