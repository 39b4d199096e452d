"""One row of the table: a task at one number of shots, with one kind of support and of answers, and its controls."""

import collections
import copy
import functools
import itertools
from collections.abc import Callable, Container, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from flamingo_jax.evaluation import intervals
from flamingo_jax.evaluation.answered import Answered
from flamingo_jax.evaluation.answers import Answering
from flamingo_jax.evaluation.contact_sheet import Example
from flamingo_jax.evaluation.metrics import exact
from flamingo_jax.evaluation.report import Row, Score
from flamingo_jax.evaluation.task import COMPARED, OPEN_ENDED, Task, shuffled
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.prompts import encode
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.parallel import processes
from flamingo_jax.tasks.episode import Episode, Part

Shown = Callable[[Part], Any]
DAY = 24 * 3600


def measure(
    config: ConfigDict,
    model: Pretrained,
    task: Task,
    shots: int,
    support: str,
    answers: str,
    progress: Callable[[int], Any],
    answered: Answered | None = None,
) -> tuple[Row, list[Example]]:
    """The scores of one setting, and some examples. Every process returns the same.

    A task without published answers has no scores, and no controls.

    progress: called with the number of questions that were answered: an episode has as many as there are `ways`.
    answered: the answers that are kept; None keeps none.
    """
    episodes = list(task.episodes(config.episodes, shots, support, answers=answers, seed=config.seed))
    answering = task.answering(answers, config.max_new_tokens, config.num_beams, config.length_penalty)
    answered = Answered() if answered is None else answered
    given: dict[str, dict[str, Any]] = collections.defaultdict(dict)
    for name in ways(task, answers):
        who, asked, shown = way(name, model, episodes, config.seed)
        found = ask(who, answering, asked, shown, config.batch_size, answered=answered, progress=progress)
        read = task.read_answer if answers == OPEN_ENDED else lambda answer: answer
        given[name] = {episode.id: read(answer) for episode, answer in zip(asked, found, strict=True)}

    scores, marks = _scores(task, answers, episodes, ways=ways(task, answers), given=given) if task.scored else ({}, {})
    queries = _queries(task, episodes, given['model'], marks)
    by_type = task.by_type([(episode.types, marks[episode.id]) for episode in episodes]) if task.scored else ''
    common = (task.name, answers, support, shots)
    examples = _examples(task, common, config.examples, episodes, given=given['model'], marks=marks)
    row = Row(task.name, answers, support, shots, len(episodes), scores, config.seed, queries, by_type=by_type)
    return row, examples


def ways(task: Task, answers: str) -> list[str]:
    """The ways in which the questions of a task are asked: as they are, and its controls. Two towers need an image."""
    controls = ['shuffled images', 'text only'] if task.controls and task.scored else []
    controls = controls[:1] if answers == COMPARED else controls
    return ['model', *controls, *(['told the names'] if task.told and task.scored else [])]


def way(
    name: str, model: Pretrained, episodes: Sequence[Episode], seed: int
) -> tuple[Pretrained, Sequence[Episode], Shown | None]:
    """One of the `ways`: who answers, the episodes, and what is shown of their images (None: nothing)."""
    who, shown = (model.language_model, words) if name == 'told the names' else (model, frames)
    asked = shuffled(episodes, seed) if name == 'shuffled images' else episodes
    return who, asked, None if name == 'text only' else shown


def digests(
    who: Pretrained, answering: Answering, episodes: Sequence[Episode], shown: Shown | None, answered: Answered
) -> list[str]:
    """What identifies each question to the answers that are kept."""
    named = identity if shown is frames else shown
    return [
        answered.digest(who.params, answering, prompt_of(episode, named, who.tokenizer), episode)
        for episode in episodes
    ]


def ask(
    who: Pretrained,
    answering: Answering,
    episodes: Sequence[Episode],
    shown: Shown | None,
    batch_size: int,
    answered: Answered,
    progress: Callable[[int], Any],
) -> list[Any]:
    """The answer to each episode. Those that are kept are not asked for again.

    The others are batched by length, and each process answers every n-th batch. What all prompts begin with is read
    once.
    """
    # A copy of a file on another host may have another time, and so another digest: the first process names all.
    asked = processes.from_first(digests(who, answering, episodes, shown, answered))
    # Equal questions are asked once: without images and examples, all may be equal.
    left = sorted({digest: i for i, digest in enumerate(asked) if answered.get(digest) is None}.values())
    progress(len(episodes) - len(left))
    lengths = dict(zip(left, lengths_of(who, [episodes[i] for i in left], shown), strict=True))
    left.sort(key=lengths.__getitem__, reverse=True)
    batches = [left[begin : begin + batch_size] for begin in range(0, len(left), batch_size)]
    if left and (common := _common(episodes)):
        who.remember(_examples_of(episodes[0], common, shown, who.tokenizer))
    n, here = jax.process_count(), jax.process_index()
    own = {}
    for number, batch in enumerate(batches[here::n]):
        some = [episodes[i] for i in batch]
        found = answering(who, [prompt_of(episode, shown, who.tokenizer) for episode in some], some)
        new = {asked[i]: answer for i, answer in zip(batch, found, strict=True)}
        answered.add(new)
        own |= new
        progress(sum(map(len, batches[number * n : (number + 1) * n])))
    for one in processes.gather(own, DAY):  # Hosts may be of unequal speed.
        answered.add(one, own=False)
    return [answered.get(digest) for digest in asked]


def _common(episodes: Sequence[Episode]) -> int:
    """The number of examples with which all prompts begin."""
    alike = (all(part == parts[0] for part in parts) for parts in zip(*(e.support for e in episodes), strict=False))
    return sum(itertools.takewhile(bool, alike)) if len(episodes) > 1 else 0


def lengths_of(who: Pretrained, episodes: Sequence[Episode], shown: Shown | None) -> list[int]:
    """The number of tokens of each prompt. No image is read. Two towers read no prompts: 0."""
    if who.config.contrastive is not None:
        return [0] * len(episodes)
    image = np.zeros((1, 1, 1), np.float32)  # Replaces every image, since all tags have the same number of tokens.
    tokenizer = copy.copy(who.tokenizer)
    tokenizer.encode = functools.cache(who.tokenizer.encode)  # Prompts share most of their texts.
    shown = (lambda _: image) if shown is frames else shown
    return [len(encode(prompt_of(episode, shown, tokenizer), tokenizer).tokens) for episode in episodes]


def _scores(
    task: Task, answers: str, episodes: Sequence[Episode], ways: Container[str], given: dict[str, dict[str, Any]]
) -> tuple[dict[str, Score], dict[str, float]]:
    """The scores of all `ways` and baselines, and the score of each of the model's answers."""
    for episode in episodes:
        for name, answer in task.baselines(episode).items():
            given[name][episode.id] = answer
    references = {episode.id: episode.references for episode in episodes}
    clusters = {episode.id: episode.clusters for episode in episodes}
    scores, marks = {}, {}
    for name, found in given.items():
        ids = [id for id in references if id in found]  # A baseline may not answer all of them.
        if not ids:
            continue
        metric = task.metric if name in ways else exact.score if task.likelihoods else task.metric
        _, marks[name] = metric({id: found[id] for id in ids}, {id: references[id] for id in ids})
        scores[name] = intervals.mean(marks[name], clusters)
        if name == 'model' and answers == OPEN_ENDED and all(episode.candidates for episode in episodes):
            scores['any candidate'] = _any_candidate(episodes, found, clusters)
    if chances := [chance for episode in episodes if (chance := task.chance(episode)) is not None]:
        # Copying a word of the prompt as an open-ended answer is as good as a guess among the candidates.
        scores['chance'] = Score(float(np.mean(chances)), 0.0)
    return scores, marks['model']


def prompt_of(episode: Episode, shown: Shown | None, tokenizer: Tokenizer) -> list[Any]:
    """Images, or what `shown` puts in their place (None leaves them out), and texts in reading order.

    A mark such as <EOC> in a text of the data set is its characters.
    """
    prompt = _examples_of(episode, len(episode.support), shown, tokenizer)
    for part in episode.query:
        prompt += _items_of(part, shown, '' if part is episode.query[-1] else tokenizer.chunk_end, tokenizer)
    # Without images a prompt may be empty, and some language models have no token to begin with.
    if not tokenizer.begin and all(isinstance(item, str) and not item for item in prompt):
        prompt = [tokenizer.chunk_end]
    return prompt


def _examples_of(episode: Episode, number: int, shown: Shown | None, tokenizer: Tokenizer) -> list[Any]:
    """The first examples of a prompt."""
    prompt: list[Any] = []
    for part in episode.support[:number]:
        prompt += _items_of(part, shown, f'{tokenizer.chunk_end}{episode.between}', tokenizer)
    return prompt


def _items_of(part: Part, shown: Shown | None, end: str, tokenizer: Tokenizer) -> list[Any]:
    """A part with the `end` of its text. Words in an image's place are one text with it, so that each part has one."""
    if part.image is None or shown is None:
        return [tokenizer.literal(part.text) + end]
    image = shown(part)
    if isinstance(image, str):
        return [tokenizer.literal(image + part.text) + end]
    return [image, tokenizer.literal(part.text) + end]


def frames(part: Part) -> Any:
    """The image of a part, read from its source."""
    return part.of.frames(part.image)


def identity(part: Part) -> Any:
    """What tells the image of a part from all others."""
    return dict(image=part.of.identity(part.image))


def words(part: Part) -> str:
    """What the image of a part shows, in words: `A cat.`, or `A cat` before a colon."""
    said = part.of.words(part.image)
    return said.removesuffix('.') if part.text.startswith(':') else said


def _any_candidate(episodes: Sequence[Episode], answers: dict[str, str], clusters: dict[str, tuple[str, ...]]) -> Score:
    """The share of answers that are some candidate."""

    @functools.cache  # Many episodes have the same candidates.
    def normals(candidates: tuple[str, ...]) -> set[str]:
        return {exact.normal(candidate) for candidate in candidates}

    found = {e.id: exact.normal(answers[e.id]) in normals(e.candidates) for e in episodes}
    return intervals.mean({id: float(one) for id, one in found.items()}, clusters)


def _examples(task, common, number, episodes, given, marks) -> list[Example]:
    """The first right and the first wrong answers, so many of each; none if the right ones are not published."""
    shown: dict[bool, list[Example]] = {True: [], False: []}
    for episode in episodes if task.scored else ():
        answer = _chosen(given[episode.id])
        # What a score over all likelihoods owes to one question does not say whether its answer is right.
        right = answer == episode.truth if task.likelihoods else marks[episode.id] >= 0.5
        if len(shown[right]) < number:
            parts = [(part.of.encoded(part.image) if part.image else None, part.text) for part in episode.parts]
            shown[right].append(Example(*common, tuple(parts), answer, episode.truth, right))  # pyright: ignore[reportCallIssue]  # The setting is four.
    return shown[True] + shown[False]


def _queries(task, episodes, given, marks) -> dict[str, dict[str, Any]]:
    """`Row.queries`; the score is None, and there is no truth, if the right answers are not published."""
    queries = {}
    for e in episodes:
        answer = given[e.id]
        query = dict(clusters=e.clusters, score=marks.get(e.id), answer=_chosen(answer), metric=task.metric_name)
        # As the metric takes it, if it takes more than the answer.
        query |= dict(likelihoods=answer) if isinstance(answer, dict) else {}
        query |= dict(found=answer) if isinstance(answer, list) else {}
        query |= dict(truth=e.truth, references=e.references) if task.scored else {}
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
