"""What an evaluation refuses, or says, before it asks anything."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict
from tqdm import tqdm

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation import controls
from flamingo_jax.evaluation.answers import Ranked
from flamingo_jax.evaluation.benchmark import Benchmark
from flamingo_jax.evaluation.episode_prompts import lengths_of, prompt_of
from flamingo_jax.evaluation.metrics import exact
from flamingo_jax.evaluation.records import in_a_file_name
from flamingo_jax.evaluation.rices import BY_CLIP, RICES
from flamingo_jax.evaluation.setting import Setting
from flamingo_jax.evaluation.task import OPEN_ENDED
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.parallel import processes


def check_config(config: ConfigDict) -> None:
    """ValueError if a number makes no sense, or if the files of two tasks would have the same names."""
    for name in ('seeds', 'episodes', 'frames', 'batch_size', 'max_new_tokens', 'num_beams'):
        if config[name] < 1:
            raise UserError(f'config.{name} is {config[name]}. It must be 1 or more.')
    if config.other_images and config.features:
        raise UserError('config.other_images are image files, which cannot stand beside config.features. Remove one.')
    if not math.isfinite(config.length_penalty):
        raise UserError(f'config.length_penalty is {config.length_penalty}. It must be a finite number.')
    titles = [fields.get('title') or name for name, fields in config.tasks.to_dict().items()]
    titles.sort(key=in_a_file_name)
    for one, other in itertools.pairwise(titles):
        if in_a_file_name(one) == in_a_file_name(other):
            raise UserError(
                f'Two tasks have the titles {one!r} and {other!r}, so that one would replace the files of the other. '
                'Give one of them another title.'
            )


def refuse_features_of_benchmarks(config: ConfigDict) -> None:
    """ValueError if `config.features`, which are of an image set, would stand beside a benchmark's own images."""
    own = [name for name, task in config.tasks.items() if issubclass(task.asks, Benchmark)]
    if config.features and own:
        raise UserError(
            f"config.features is {config.features!r}, but {', '.join(own)} ask about a benchmark's own images, which "
            "have none. Set it to '', or ask these tasks in another evaluation."
        )


def refuse_long_prompts(settings: Sequence[Setting], model: Pretrained) -> None:
    """ValueError if a prompt with its answer exceeds the context. All episodes are checked before any is run."""
    if model.config.contrastive is not None:  # Two towers read no prompts.
        return
    context, too_long = model.config.lm.context, []
    # The features that RICES compares are computed for the first prompt that needs them.
    settings = sorted(settings, key=lambda setting: setting.support in (RICES, BY_CLIP))
    for setting in tqdm(settings, unit=' settings', desc='lengths of prompts', leave=False):
        if too_long and setting.support in (RICES, BY_CLIP):  # Enough is known to refuse.
            break
        tokens, answer = longest(setting, model)
        if tokens + answer <= context:
            continue
        # The largest number that fits, by bisection: prompts grow with the shots.
        fits, too_many = 0, setting.shots
        while too_many - fits > 1:
            half = (fits + too_many) // 2
            if sum(longest(dataclasses.replace(setting, shots=half), model)) <= context:
                fits = half
            else:
                too_many = half
        too_long.append(
            f'Task {setting}: a prompt of {tokens} tokens and {answer} for the answer exceed the context of {context} '
            'tokens. '
            + (
                f'At most {fits} shots fit.'
                if fits
                else 'Not even 1 shot fits.'
                if setting.shots
                else 'There are no shots to leave out.'
            )
        )
    if too_long:
        remedy = 'Give fewer shots in the config, or evaluate a model with a longer context.'
        raise UserError('\n'.join([*too_long, remedy]))


def longest(setting: Setting, model: Pretrained) -> tuple[int, int]:
    """The most tokens of a prompt, and of an answer, of the control that needs the most."""
    answering, episodes, most = setting.answering, setting.episodes(), []
    for name in setting.controls:
        if (
            name in controls.CONTROLS and name not in controls.NEW_TEXTS
        ):  # Their prompts are no longer than the model's.
            continue
        _, responder, asked, shown = setting.control(name, model, episodes)
        rooms: dict[tuple[str, ...], int] = {}  # Many episodes have the same candidates.
        for episode in asked:
            key = (*episode.candidates, *map(str, episode.written)) if isinstance(answering, Ranked) else ()
            if key not in rooms:
                end = prompt_of(episode, None, responder.tokenizer)[-1:]
                rooms[key] = answering.room(responder, end, episode)
        most.append((max(lengths_of(responder, asked, shown)), max(rooms.values())))
    return max(most, key=sum)


def say_what_is_cut(settings: Sequence[Setting], model: Pretrained) -> None:
    """Says which right answers have more tokens than may be written: none of them can match exactly."""
    exact_match = [s for s in settings if s.answers == OPEN_ENDED and s.task.metric is exact.score]
    first = {setting.task.name: setting for setting in reversed(exact_match)}  # All of a task have the same answers.
    for setting in first.values():
        how: Any = setting.answering
        most = how.max_new_tokens  # It is `Generated`, since the answer is open-ended.
        truths = [episode.truth for episode in setting.episodes() if episode.truth]
        tokens = {truth: len(model.tokenizer.encode(model.tokenizer.literal(f' {truth}'))) for truth in set(truths)}
        if cut := [truth for truth in truths if tokens[truth] > most]:
            worst = max(cut, key=tokens.__getitem__)
            processes.say(
                f'Task {setting.task.name}: {len(cut)} of {len(truths)} right answers have more than '
                f'max_new_tokens={most} tokens, so that nothing can match them. The longest is {worst!r}. '
                f'Set --config.max_new_tokens={tokens[worst]}.'
            )
