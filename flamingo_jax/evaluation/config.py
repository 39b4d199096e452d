"""The base config of an evaluation: every key. The keys of a task are in task.py, and with its game or benchmark."""

from ml_collections import ConfigDict

from flamingo_jax.evaluation.task import task

__all__ = ['ALL', 'base', 'task']

ALL = 10**9  # Episodes: all queries of a benchmark.


def base() -> ConfigDict:
    """An evaluation without tasks."""
    c = ConfigDict()
    c.seed = 0
    # Number of seeds, from `seed` on. Each draws other examples; the queries of a benchmark stay the same.
    c.seeds = 1
    c.data = ''  # Folder of a prepared image set, or of a benchmark's own files.
    c.features = ''  # Folder of features computed once; '' reads pixels.
    c.pooled = ''  # Folder in which the features that RICES compares are kept; '' is `pooled` in the workdir.
    # Bundle of the CLIP by which the support 'rices by clip' compares images: `convert clip_embedding` makes it.
    c.clip = ''
    c.other_images = ''  # Folder of image files for the control 'images of another set'; not beside `features`.
    c.image_size = 0  # Height and width of the images in pixels; 0 is that of training.
    c.frames = 1  # Frames per image; more than 1 are clips.
    c.stills = False  # True shows only the first frame of a clip.
    # Name -> task(CLASS, ...). The name is one word, so that a flag can set a field: --config.tasks.NAME.shots=4,8
    c.tasks = ConfigDict()
    c.episodes = 1000  # Per task, shots, support and kind of answers. At most the queries of a benchmark.
    c.batch_size = 16  # Prompts at a time in each process.
    c.max_new_tokens = 16  # Most tokens of an open-ended answer.
    c.num_beams = 3  # Beams for an open-ended answer (paper: 3).
    # Beams are compared by log-probability / length ** length_penalty (OpenFlamingo: 0; the paper does not say).
    c.length_penalty = 0.0
    c.write_prompts = False  # Write every prompt, with its answer, to prompts/ in the workdir.
    # Results file of OpenFlamingo's form whose scores stand beside those of the report; '' is none (results_file.py).
    c.published = ''
    c.examples = 6  # Right answers, and as many wrong ones, on the contact sheet for each setting.
    # Mesh of the devices of each process; -1 takes the remaining ones. The rows of a batch are sharded over data x
    # fsdp.
    c.mesh = ConfigDict(dict(data=1, fsdp=1, tensor=1))
    c.lock()  # A mistyped key is an error.
    c.tasks.unlock()
    return c
