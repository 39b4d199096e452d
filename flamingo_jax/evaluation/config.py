"""The base config of an evaluation: every key there is."""

import dataclasses

from ml_collections import ConfigDict

from flamingo_jax.evaluation.task import TaskConfig


def base() -> ConfigDict:
    """An evaluation without tasks."""
    c = ConfigDict()
    c.seed = 0
    c.data = ''  # Folder of a prepared picture set.
    c.features = ''  # Folder of features computed once; '' reads pixels.
    c.frames = 1  # Frames a picture; more are clips.
    c.stills = False  # Show the first frame of a clip alone.
    c.tasks = ConfigDict()  # name -> task(...)
    c.episodes = 1000  # A setting: task, shots, support and kind of answer.
    c.batch_size = 16  # Prompts at a time.
    c.max_new_tokens = 16  # Of an open-ended answer.
    c.num_beams = 3  # Of an open-ended answer (paper: 3).
    c.examples = 6  # Right and wrong answers a setting that the contact sheet shows, of each.
    c.lock()  # A mistyped key is an error, and is not ignored.
    c.tasks.unlock()
    return c


def task(**fields) -> ConfigDict:
    """A task for `config.tasks`, as data; the fields are those of `TaskConfig`."""
    return ConfigDict(dataclasses.asdict(TaskConfig(**fields)))
