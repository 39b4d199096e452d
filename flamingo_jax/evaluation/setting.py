"""One row of the table: a task at one number of shots, with one kind of support and of answers, and its controls."""

import collections
import functools
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from flamingo_jax.evaluation import intervals
from flamingo_jax.evaluation.contact_sheet import Example
from flamingo_jax.evaluation.metrics import exact
from flamingo_jax.evaluation.report import Row, Score
from flamingo_jax.evaluation.task import COMPARED, OPEN_ENDED, Task, shuffled
from flamingo_jax.few_shot.episode import Episode, Part
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.parallel import processes

Shown = Callable[[Part], Any]


def measure(
    config: ConfigDict,
    model: Pretrained,
    task: Task,
    shots: int,
    support: str,
    answers: str,
    progress: Callable[[int], Any],
) -> tuple[Row, list[Example]]:
    """The scores of one setting, and some examples. Every process returns the same.

    A task without published answers has no scores, and no controls.

    Each process answers every n-th batch. The batch of an episode does not change its answer.

    progress: called with the number of episodes that all processes answered.
    """
    episodes = list(task.episodes(config.episodes, shots, support, answers=answers, seed=config.seed))
    ways: dict[str, tuple[Pretrained, Sequence[Episode], Shown | None]] = dict(model=(model, episodes, frames))
    if task.controls and task.scored:
        mixed = shuffled(episodes, config.seed)
        ways |= {'shuffled pictures': (model, mixed, frames)}
        if answers != COMPARED:  # Two towers need a picture.
            ways |= {'text only': (model, episodes, None)}
    if task.told and task.scored:
        ways['told the names'] = model.language_model, episodes, words
    answering = task.answering(answers, config.max_new_tokens, config.num_beams)
    given: dict[str, dict[str, Any]] = collections.defaultdict(dict)
    n, here = jax.process_count(), jax.process_index()
    for begin in range(here * config.batch_size, len(episodes), n * config.batch_size):
        for name, (who, asked, shown) in ways.items():
            some = asked[begin : begin + config.batch_size]
            found = answering(who, [prompt_of(episode, shown, who.tokenizer) for episode in some], some)
            if answers == OPEN_ENDED:
                found = [task.read_answer(text) for text in found]
            given[name] |= {episode.id: answer for episode, answer in zip(some, found, strict=True)}
        progress(min(n * config.batch_size, len(episodes) - begin + here * config.batch_size))
    for one in processes.gather(given):
        for name, found in one.items():
            given[name] |= found

    scores, marks = _scores(task, answers, episodes, ways=ways, given=given) if task.scored else ({}, {})
    queries = _queries(episodes, given['model'], marks)
    examples = _examples(
        config, task, shots, support=support, answers=answers, episodes=episodes, given=given['model'], marks=marks
    )
    return Row(task.name, answers, support, shots, len(episodes), scores, config.seed, queries), examples


def _scores(
    task: Task, answers: str, episodes: Sequence[Episode], ways: Container[str], given: dict[str, dict[str, Any]]
) -> tuple[dict[str, Score], dict[str, float]]:
    """The scores of all `ways` and baselines, and the score of each of the model's answers."""
    for episode in episodes:
        for name, answer in task.baselines(episode).items():
            given[name][episode.id] = answer
    references = {episode.id: episode.references for episode in episodes}
    groups = {episode.id: episode.group for episode in episodes}
    scores, marks = {}, {}
    for name, found in given.items():
        ids = [id for id in references if id in found]  # A baseline may not answer all of them.
        if not ids:
            continue
        metric = task.metric if name in ways else exact.score if task.likelihoods else task.metric
        scores[name], each = intervals.scored(
            metric, {id: found[id] for id in ids}, {id: references[id] for id in ids}, groups
        )
        marks[name] = each
        if name == 'model' and answers == OPEN_ENDED and all(episode.candidates for episode in episodes):
            scores['any candidate'] = _any_candidate(episodes, found)
    if chances := [chance for episode in episodes if (chance := task.chance(episode)) is not None]:
        # Copying a word of the prompt as an open-ended answer is as good as a guess among the candidates.
        scores['chance'] = Score(float(np.mean(chances)), 0.0)
    return scores, marks['model']


def prompt_of(episode: Episode, shown: Shown | None, tokenizer: Tokenizer) -> list[Any]:
    """Pictures, or what `shown` puts in their place (None leaves them out), and texts in reading order."""
    prompt: list[Any] = []
    for index, part in enumerate(episode.parts):
        if part.picture is not None and shown is not None:
            prompt.append(shown(part))
        if part is episode.parts[-1]:
            prompt.append(part.text)
        else:
            prompt.append(
                f'{part.text}{tokenizer.chunk_end}' + (episode.between if index < len(episode.support) else '')
            )
    # Without pictures a prompt may be empty, and some language models have no token to begin with.
    if not tokenizer.begin and all(isinstance(item, str) and not item for item in prompt):
        prompt = [tokenizer.chunk_end]
    return prompt


def frames(part: Part) -> Any:
    """The picture of a part, read from its source."""
    return part.of.frames(part.picture)


def words(part: Part) -> str:
    """What the picture of a part shows, in words."""
    return part.of.words(part.picture)


def _any_candidate(episodes: Sequence[Episode], answers: dict[str, str]) -> Score:
    @functools.cache  # Many episodes have the same candidates.
    def normals(candidates: tuple[str, ...]) -> set[str]:
        return {exact.normal(candidate) for candidate in candidates}

    return intervals.share([exact.normal(answers[e.id]) in normals(e.candidates) for e in episodes])


def _examples(config, task, shots, support, answers, episodes, given, marks) -> list[Example]:
    """The first right and the first wrong answers."""
    shown: dict[bool, list[Example]] = {True: [], False: []}
    for episode in episodes:
        right = marks.get(episode.id, 0.0) >= 0.5
        if len(shown[right]) < config.examples:
            parts = [(part.of.encoded(part.picture) if part.picture else None, part.text) for part in episode.parts]
            answer = _chosen(given[episode.id])
            shown[right].append(Example(task.name, answers, support, shots, tuple(parts), answer, episode.truth, right))
    return shown[True] + shown[False]


def _queries(episodes, given, marks) -> dict[str, dict[str, Any]]:
    """`Row.queries`; the score is None if the right answers are not published."""
    return {e.id: dict(group=e.group, score=marks.get(e.id), answer=_chosen(given[e.id])) for e in episodes}


def _chosen(answer: str | list[str] | dict[str, float]) -> str:
    """An answer, the first of several, or the likeliest candidate."""
    if isinstance(answer, list):
        return answer[0]
    return answer if isinstance(answer, str) else max(answer, key=answer.__getitem__)


def batched(episodes: Iterator[Episode], n: int) -> Iterator[list[Episode]]:
    """Lists of n episodes."""
    some: list[Episode] = []
    for episode in episodes:
        some.append(episode)
        if len(some) == n:
            yield some
            some = []
    if some:
        yield some
