"""Scores the answers to one setting, beside those of its controls and baselines."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flamingo_jax.evaluation import intervals, paired
from flamingo_jax.evaluation.contact_sheet import Example
from flamingo_jax.evaluation.metrics import exact
from flamingo_jax.evaluation.report import Row, Score
from flamingo_jax.evaluation.setting import Setting
from flamingo_jax.evaluation.task import OPEN_ENDED
from flamingo_jax.tasks.episode import Episode, Part

Marks = dict[str, dict[str, float]]  # Name of a control or baseline -> id of an episode -> its score.
Given = Mapping[str, Mapping[str, Any]]  # Name of a control -> id of an episode -> the answer that is scored.


def score(setting: Setting, episodes: Sequence[Episode], given: Given, examples: int) -> tuple[Row, list[Example]]:
    """The row of a setting, and some examples of it.

    A task without published answers has no scores.

    examples: the number of right answers, and of wrong ones.
    """
    task, answers = setting.task, given['model']
    scores, every = _scores(setting, episodes, given) if task.scored else ({}, {'model': {}})
    marks, clusters = every['model'], {episode.id: episode.clusters for episode in episodes}
    row = Row(
        task.name,
        setting.answers,
        setting.support,
        setting.shots,
        len(episodes),
        scores,
        setting.seed,
        queries=_queries(setting, episodes, answers, every),
        by_type=task.by_type([(episode.types, marks[episode.id]) for episode in episodes]) if task.scored else '',
        leads=paired.differences(every, clusters) if task.scored else {},
        pairs=paired.needs_pairs(every, clusters) if task.scored else None,
    )
    return row, _examples(setting, examples, episodes, answers, marks)


def _scores(setting: Setting, episodes: Sequence[Episode], given: Given) -> tuple[dict[str, Score], Marks]:
    """The scores of all controls and baselines, and of each of their answers."""
    task, given = setting.task, {name: dict(answers) for name, answers in given.items()}
    for episode in episodes:
        for name, answer in task.baselines(episode).items():
            given.setdefault(name, {})[episode.id] = answer
    references = {episode.id: episode.references for episode in episodes}
    clusters = {episode.id: episode.clusters for episode in episodes}
    scores, marks = {}, {}
    for name, answers in given.items():
        ids = [id for id in references if id in answers]  # A baseline may not answer all of them.
        if not ids:
            continue
        metric = task.metric if name in setting.controls else exact.score if task.likelihoods else task.metric
        _, marks[name] = metric({id: answers[id] for id in ids}, {id: references[id] for id in ids})
        scores[name] = intervals.mean(marks[name], clusters)
        if name == 'model' and setting.answers == OPEN_ENDED and all(episode.candidates for episode in episodes):
            scores['any candidate'] = _any_candidate(episodes, answers, clusters)
    if chances := [chance for episode in episodes if (chance := task.chance(episode)) is not None]:
        # Copying a word of the prompt as an open-ended answer is as good as a guess among the candidates.
        scores['chance'] = Score(float(np.mean(chances)), 0.0)
    return scores, marks


def _any_candidate(episodes: Sequence[Episode], answers: dict[str, str], clusters: dict[str, tuple[str, ...]]) -> Score:
    """The share of answers that are some candidate."""

    @functools.cache  # Many episodes have the same candidates.
    def normals(candidates: tuple[str, ...]) -> set[str]:
        return {exact.normal(candidate) for candidate in candidates}

    some = {e.id: float(exact.normal(answers[e.id]) in normals(e.candidates)) for e in episodes}
    return intervals.mean(some, clusters)


def _examples(
    setting: Setting, number: int, episodes: Sequence[Episode], answers: Mapping[str, Any], marks: Mapping[str, float]
) -> list[Example]:
    """The first right and the first wrong answers, so many of each; none if the right ones are not published."""
    task, common = setting.task, (setting.task.name, setting.answers, setting.support, setting.shots)
    shown: dict[bool, list[Example]] = {True: [], False: []}
    for episode in episodes if task.scored else ():
        answer = _chosen(answers[episode.id])
        # What a score over all likelihoods owes to one question does not say whether its answer is right.
        right = answer == episode.truth if task.likelihoods else marks[episode.id] >= 0.5
        if len(shown[right]) < number:
            parts = [(part.of.encoded(part.image) if part.image else None, part.text) for part in episode.parts]
            shown[right].append(Example(*common, tuple(parts), answer, episode.truth, right))
    return shown[True] + shown[False]


def _queries(
    setting: Setting, episodes: Sequence[Episode], answers: Mapping[str, Any], marks: Marks
) -> dict[str, dict[str, Any]]:
    """`Row.queries`; the score is None, and there is no truth, if the right answers are not published."""
    queries, task, beside = {}, setting.task, [name for name in setting.controls[1:] if name in marks]
    for e in episodes:
        answer = answers[e.id]
        query = dict(
            clusters=e.clusters, score=marks['model'].get(e.id), answer=_chosen(answer), metric=task.metric_name
        )
        # As the metric takes it, if it takes more than the answer.
        query |= dict(likelihoods=answer) if isinstance(answer, dict) else {}
        query |= dict(found=answer) if isinstance(answer, list) else {}
        query |= dict(truth=e.truth, references=e.references) if task.scored else {}
        query |= dict(controls={name: marks[name][e.id] for name in beside}) if beside else {}
        query |= dict(types=dict(e.types)) if e.types else {}
        queries[e.id] = query | dict(examples=[_named(part) for part in e.support])
    return queries


def _named(part: Part) -> str:
    """The id of an example, or else the key of its image."""
    return part.id or ('' if part.image is None else str(part.key))


def _chosen(answer: str | list[str] | dict[str, float]) -> str:
    """An answer, the first of several, or the likeliest candidate."""
    if isinstance(answer, list):
        return answer[0]
    return answer if isinstance(answer, str) else max(answer, key=answer.__getitem__)
