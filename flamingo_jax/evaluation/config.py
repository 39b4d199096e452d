"""The base config of an evaluation: every key there is. Those of a task are in task.py, and with its game or benchmark."""

from ml_collections import ConfigDict

from flamingo_jax.evaluation.task import task

__all__ = ['base', 'task']


def base() -> ConfigDict:
    """An evaluation without tasks."""
    c = ConfigDict()
    c.seed = 0
    c.data = ''  # Folder of a prepared picture set, or of a benchmark's own files.
    c.features = ''  # Folder of features computed once; '' reads pixels.
    c.frames = 1  # Frames a picture; more are clips.
    c.stills = False  # Show the first frame of a clip alone.
    c.tasks = (
        ConfigDict()
    )  # name -> task(CLASS, ...); a name of one word can be followed by a field: --config.tasks.NAME.shots=4,8
    c.episodes = 1000  # A setting: task, shots, support and kind of answer. A benchmark has no more than its queries.
    c.batch_size = 16  # Prompts at a time, in each process.
    c.max_new_tokens = 16  # Of an open-ended answer.
    c.num_beams = 3  # Of an open-ended answer (paper: 3).
    c.examples = 6  # Right and wrong answers a setting that the contact sheet shows, of each.
    # Of the devices of each process; -1 takes those that are left. The rows of a batch lie over data x fsdp.
    c.mesh = ConfigDict(dict(data=1, fsdp=1, tensor=1))
    c.lock()  # A mistyped key is an error, and is not ignored.
    c.tasks.unlock()
    return c
