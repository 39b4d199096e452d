"""Few-shot evaluation of a checkpoint, with its baselines beside every score.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/NAME.py --checkpoint=BUNDLE_OR_WORKDIR --workdir=DIR

Beside the model's score stand, over the same episodes: the same model with the pictures shuffled, the same model with no
pictures, nearest centroid and nearest neighbour on the frozen features, and chance.
"""

import functools
import itertools
import platform
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from flamingo_jax.evaluation import metrics, report, rices
from flamingo_jax.evaluation.tasks import Episode, Task, TaskConfig
from flamingo_jax.inference import pretrained
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.picture_set import Picture, PictureSet
from flamingo_jax.inputs.prompts import encode_prompt
from flamingo_jax.inputs.tokenizer import EOC


def evaluate(config: ConfigDict, checkpoint: str, workdir: str) -> list[report.Row]:
    """Runs every task of a config, writes the reports and prints the table.

    Raises:
      FileNotFoundError, ValueError: bad input, before any episode is run.
    """
    start = time.time()
    model = pretrained.load(checkpoint)
    trunk = model.checksums.get('vision', '')

    @functools.cache
    def open_split(split: str):
        pictures = PictureSet(
            config.data,
            split,
            features=config.features,
            image_size=model.config.image_size,
            trunk=trunk,
            fit=model.config.fit,
        )
        return pictures, rices.pool(model.features, pictures)

    tasks = [Task(name, TaskConfig(**fields), open_split) for name, fields in config.tasks.to_dict().items()]
    settings = [
        (task, shots, support, answers)
        for task in tasks
        for support, answers, shots in itertools.product(task.config.support, task.config.answers, task.config.shots)
    ]
    _refuse_long_prompts(config, model, settings)
    rows, examples = [], []
    with tqdm(total=config.episodes * len(settings), unit=' episodes') as progress:
        for task, shots, support, answers in settings:
            progress.set_postfix_str(f'{task.name}, {shots} shots, {support}, {answers}')
            row, shown = _run(config, model, task, shots, support, answers, progress)
            rows.append(row)
            examples += shown
    about = dict(
        checkpoint=str(checkpoint),
        step=model.step,
        config=config.to_dict(),
        seconds=round(time.time() - start),
        machine=f'{jax.devices()[0].device_kind}, {jax.device_count()} device(s), {platform.processor() or platform.machine()}',
        jax=jax.__version__,
        flamingo_jax=version('flamingo_jax'),
    )
    written = report.write(workdir, rows, examples, about)
    print(report.table(rows))
    print(written)
    return rows


def _refuse_long_prompts(config, model: Pretrained, settings: Sequence[tuple[Task, int, str, str]]) -> None:
    """ValueError if some prompt and its answer exceed the context: all episodes are known before any is run."""
    picture = np.zeros((1, 1, 1), np.float32)  # Stands for any: its tag takes as many tokens.
    context, too_long = model.config.lm.context, []

    @functools.cache  # Names have the same candidates in every episode.
    def room(prompt: str, candidates: tuple[str, ...]) -> int:
        return model.room([prompt], _continuations(candidates))

    for task, shots, support, answers in tqdm(settings, unit=' settings', desc='lengths of prompts', leave=False):
        needed = []
        for batch in _batched(task.episodes(config.episodes, shots, support, config.seed), config.batch_size):
            prompts = [_prompt(task, episode, [picture] * (len(episode.support) + 1)) for episode in batch]
            tokens = max(len(encode_prompt(prompt, model.tokenizer, 1)[0]) for prompt in prompts)
            ranked = answers == 'ranked'
            needed.append(
                (
                    tokens,
                    max(room(task.config.prompt, e.candidates) for e in batch) if ranked else config.max_new_tokens,
                )
            )
        tokens, answer = max(needed, key=sum)
        if tokens + answer > context:
            too_long.append(
                f'Task {task.name}, {shots} shots, {support}, {answers}: a prompt of {tokens} tokens and {answer} for the answer '
                f'exceed the context of {context} tokens.'
            )
    if too_long:
        remedy = 'Leave such shots out of the config, or evaluate a model whose language model has a longer context.'
        raise ValueError('\n'.join([*too_long, remedy]))


def _run(config, model: Pretrained, task: Task, shots: int, support: str, answers: str, progress):
    """One setting: its row of the table, and some examples."""
    right: dict[str, list[bool]] = {
        name: [] for name in ('model', 'shuffled pictures', 'text only', 'nearest centroid', 'nearest neighbour')
    }
    shown: dict[bool, list[report.Example]] = {True: [], False: []}
    rng = np.random.default_rng((config.seed, 1))
    for batch in _batched(task.episodes(config.episodes, shots, support, config.seed), config.batch_size):
        pictures = [_pictures(task, episode) for episode in batch]
        shuffled = [[_any_frames(task, rng, i == len(row) - 1) for i in range(len(row))] for row in pictures]
        for name, images in (('model', pictures), ('shuffled pictures', shuffled), ('text only', None)):
            prompts = [_prompt(task, episode, images[i] if images else None) for i, episode in enumerate(batch)]
            given = _answer(config, model, prompts, batch, answers)
            marks = [metrics.same_answer(answer, episode.truth) for answer, episode in zip(given, batch, strict=True)]
            right[name] += marks
            if name == 'model':
                for episode, answer, mark in zip(batch, given, marks, strict=True):
                    if len(shown[mark]) < config.examples:
                        shown[mark].append(_example(task, episode, answers, support, shots, answer, mark))
        for episode in batch:
            neighbour, centroid = task.nearest(episode)
            right['nearest centroid'].append(metrics.same_answer(centroid, episode.truth))
            right['nearest neighbour'].append(metrics.same_answer(neighbour, episode.truth))
        progress.update(len(batch))
    scores = {name: metrics.share(marks) for name, marks in right.items()}
    scores['chance'] = report.Score(task.chance, 0.0)
    return report.Row(task.name, answers, support, shots, config.episodes, scores), shown[True] + shown[False]


def _answer(config, model: Pretrained, prompts: list, batch: Sequence[Episode], answers: str) -> list[str]:
    if answers == 'open-ended':
        return model.generate(prompts, config.max_new_tokens, config.num_beams)
    scores = model.score(prompts, [_continuations(episode.candidates) for episode in batch])
    return [episode.candidates[i] for episode, i in zip(batch, scores.argmax(axis=1), strict=True)]


def _continuations(candidates: Sequence[str]) -> list[str]:
    return [f' {candidate}{EOC}' for candidate in candidates]


def _prompt(task: Task, episode: Episode, pictures: list[np.ndarray] | None) -> list[Any]:
    texts = [f'{task.config.prompt} {label}{EOC}' for _, label in episode.support] + [task.config.prompt]
    if pictures is None:
        return texts
    return [item for pair in zip(pictures, texts, strict=True) for item in pair]


def _pictures(task: Task, episode: Episode) -> list[np.ndarray]:
    return [task.support_set.frames(picture) for picture, _ in episode.support] + [task.query_set.frames(episode.query)]


def _any_frames(task: Task, rng: np.random.Generator, is_query: bool) -> np.ndarray:
    pictures: PictureSet = task.query_set if is_query else task.support_set
    return pictures.frames(pictures.pictures[rng.integers(len(pictures.pictures))])


def _example(task: Task, episode: Episode, answers, support, shots, answer: str, mark: bool) -> report.Example:
    def chunk(pictures: PictureSet, picture: Picture, text: str):
        return pictures.encoded(picture), text

    chunks = [chunk(task.support_set, picture, f'{task.config.prompt} {label}') for picture, label in episode.support]
    chunks.append(chunk(task.query_set, episode.query, task.config.prompt))
    return report.Example(task.name, answers, support, shots, tuple(chunks), answer, episode.truth, mark)


def _batched(episodes: Iterator[Episode], n: int) -> Iterator[list[Episode]]:
    while batch := list(itertools.islice(episodes, n)):
        yield batch


def main(argv):
    """Reads the flags and evaluates."""
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells its every step.
    evaluate(_CONFIG.value, flags.FLAGS.checkpoint, flags.FLAGS.workdir)


if __name__ == '__main__':
    _CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
    flags.DEFINE_string('checkpoint', None, 'A bundle, or the workdir of a training run.', required=True)
    flags.DEFINE_string('workdir', None, 'Folder for the reports.', required=True)
    flags.mark_flag_as_required('config')
    app.run(main)
