"""Few-shot evaluation of a checkpoint, with its baselines beside every score.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/NAME.py --checkpoint=BUNDLE_OR_WORKDIR --workdir=DIR

Every key of a config, with its meaning and default, stands in flamingo_jax/evaluation/config.py, those of a task in
flamingo_jax/evaluation/task.py; --config.KEY=VALUE changes one.

Beside the model's score stand, over the same episodes: the same model with the pictures shuffled, the same model with no
pictures, nearest centroid and nearest neighbour on the frozen features, and chance.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', None, 'A bundle, or the workdir of a training run.', required=True)
    flags.DEFINE_string('workdir', None, 'Folder for the reports.', required=True)
    commands.start(__doc__, config=True)

import collections
import dataclasses
import functools
import itertools
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from flamingo_jax import memory
from flamingo_jax.evaluation import metrics, report, rices, tasks
from flamingo_jax.evaluation.task import Episode, Part, Task, TaskConfig
from flamingo_jax.inference import pretrained
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.prompts import encode_prompt
from flamingo_jax.inputs.sources.picture_set import PictureSet
from flamingo_jax.inputs.tokenizer import EOC


def evaluate(config: ConfigDict, checkpoint: str, workdir: str) -> list[report.Row]:
    """Runs every task of a config, writes the reports and prints the table.

    Raises:
      FileNotFoundError, ValueError: bad input, before any episode is run.
    """
    start = time.time()
    model = pretrained.load(checkpoint)

    @functools.cache
    def open_split(split: str):
        pictures = PictureSet(
            config.data,
            split,
            model.pictures,
            features=config.features,
            frames=config.frames,
            stills=config.stills,
        )
        return pictures, rices.pool(model.features, pictures)

    every = [tasks.make(name, TaskConfig(**fields), open_split) for name, fields in config.tasks.to_dict().items()]
    settings = [
        (task, shots, support, answers)
        for task in every
        for support, answers, shots in itertools.product(task.config.support, task.config.answers, task.config.shots)
    ]
    _refuse_long_prompts(config, model, settings)
    rows, examples = [], []
    with tqdm(total=config.episodes * len(settings), unit=' episodes') as progress:
        for task, shots, support, answers in settings:
            progress.set_postfix_str(f'{task.name}, {shots} shots, {support}, {answers}')
            # Without examples all kinds of support are the same prompts.
            asked = [row for row in rows if row.shots == shots == 0 and (row.task, row.answers) == (task.name, answers)]
            if asked:
                rows.append(dataclasses.replace(asked[0], support=support))
                progress.update(config.episodes)
                continue
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
    print('\n'.join(map(str, written)))
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
        for batch in _batched(task.episodes(config.episodes, shots, support, answers, config.seed), config.batch_size):
            prompts = [_prompt(episode, lambda _: picture) for episode in batch]
            tokens = max(len(encode_prompt(prompt, model.tokenizer, model.pictures)[0]) for prompt in prompts)
            ranked = answers != 'open-ended'
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
    right: dict[str, list[bool]] = collections.defaultdict(list)
    shown: dict[bool, list[report.Example]] = {True: [], False: []}
    rng = np.random.default_rng((config.seed, 1))
    chance = []

    @functools.cache  # Names have the same candidates in every episode.
    def normals(candidates: tuple[str, ...]) -> set[str]:
        return {metrics.normal(candidate) for candidate in candidates}

    for batch in _batched(task.episodes(config.episodes, shots, support, answers, config.seed), config.batch_size):
        shown_as = dict(model=_frames)
        if task.config.controls:
            shown_as |= {'shuffled pictures': functools.partial(_other_frames, rng), 'text only': None}
        for name, frames in shown_as.items():
            given = _answer(config, model, [_prompt(episode, frames) for episode in batch], batch, answers)
            marks = [episode.is_right(answer) for answer, episode in zip(given, batch, strict=True)]
            right[name] += marks
            if name == 'model':
                if answers == 'open-ended':
                    right['any candidate'] += [
                        metrics.normal(answer) in normals(episode.candidates)
                        for episode, answer in zip(batch, given, strict=True)
                    ]
                for episode, answer, mark in zip(batch, given, marks, strict=True):
                    if len(shown[mark]) < config.examples:
                        shown[mark].append(_example(task, episode, answers, support, shots, answer, mark))
        for episode in batch:
            chance.append(len({episode.truth, *episode.also_right}) / len(episode.candidates))
            # They name the thing, in whatever language they are told.
            if answers != 'language' and (nearest := task.nearest(episode)):
                for name, answer in zip(('nearest neighbour', 'nearest centroid'), nearest, strict=True):
                    right[name].append(metrics.same_answer(answer, episode.truth))
            if task.majority is not None:
                right['majority answer'].append(task.majority == episode.truth)
        progress.update(len(batch))
    scores = {name: metrics.share(marks) for name, marks in right.items()}
    # An open-ended answer that copies some word of the prompt does as well as a guess among the candidates.
    scores['chance'] = report.Score(float(np.mean(chance)), 0.0)
    return report.Row(task.name, answers, support, shots, config.episodes, scores), shown[True] + shown[False]


def _answer(config, model: Pretrained, prompts: list, batch: Sequence[Episode], answers: str) -> list[str]:
    if answers == 'open-ended':
        return model.generate(prompts, config.max_new_tokens, config.num_beams)
    chosen = model.choose(prompts, [_continuations(episode.candidates) for episode in batch])
    return [episode.candidates[i] for episode, i in zip(batch, chosen, strict=True)]


def _continuations(candidates: Sequence[str]) -> list[str]:
    return [f' {candidate}{EOC}' for candidate in candidates]


def _prompt(episode: Episode, frames: Callable[[Part], np.ndarray] | None) -> list[Any]:
    """Pictures, as `frames` shows them (None leaves them out), and texts in reading order."""
    prompt: list[Any] = []
    for part in episode.parts:
        if part.picture is not None and frames is not None:
            prompt.append(frames(part))
        prompt.append(part.text if part is episode.parts[-1] else f'{part.text}{EOC}')
    return prompt


def _frames(part: Part) -> np.ndarray:
    return part.of.frames(part.picture)


def _other_frames(rng: np.random.Generator, part: Part) -> np.ndarray:
    """Any picture that might stand there; a clip in any direction."""
    other = part.of.pictures[rng.integers(len(part.of.pictures))]
    is_clip = part.of.blank.shape[0] > 1
    return part.of.frames(dataclasses.replace(other, backward=is_clip and bool(rng.integers(2))))


def _example(task: Task, episode: Episode, answers, support, shots, answer: str, mark: bool) -> report.Example:
    parts = [(part.of.encoded(part.picture) if part.picture else None, part.text) for part in episode.parts]
    return report.Example(task.name, answers, support, shots, tuple(parts), answer, episode.truth, mark)


def _batched(episodes: Iterator[Episode], n: int) -> Iterator[list[Episode]]:
    while batch := list(itertools.islice(episodes, n)):
        yield batch


def main() -> None:
    """Evaluates as the flags say."""
    memory.keep_freed()
    evaluate(flags.FLAGS.config, flags.FLAGS.checkpoint, flags.FLAGS.workdir)


if __name__ == '__main__':
    main()
