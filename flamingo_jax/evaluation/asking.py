"""Asks the questions that are not answered yet, in batches, on all processes."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from flamingo_jax.evaluation.answered import Answered
from flamingo_jax.evaluation.answers import Answering
from flamingo_jax.evaluation.episode_prompts import examples_of, frames, identity, lengths_of, prompt_of
from flamingo_jax.evaluation.setting import Control
from flamingo_jax.parallel import processes
from flamingo_jax.tasks.episode import Episode

DAY = 24 * 3600


def digests(control: Control, answering: Answering, answered: Answered) -> list[str]:
    """What identifies each question to the answers that are kept."""
    named = identity if control.shown is frames else control.shown
    trees, tokenizer = control.responder.params, control.responder.tokenizer
    return [
        answered.digest(trees, answering, prompt_of(episode, named, tokenizer), episode) for episode in control.episodes
    ]


def ask(
    control: Control, answering: Answering, batch_size: int, answered: Answered, progress: Callable[[int], Any]
) -> list[Any]:
    """The answer to each episode. Those that are kept are not asked for again.

    The others are batched by length, and each process answers every n-th batch. What all prompts begin with is read
    once.

    progress: called with the number of questions that were answered.
    """
    _, responder, episodes, shown = control
    # A copy of a file on another host may have another time, and so another digest: the first process names all.
    asked = processes.from_first(digests(control, answering, answered))
    # Equal questions are asked once: without images and examples, all may be equal.
    left = sorted({digest: i for i, digest in enumerate(asked) if answered.get(digest) is None}.values())
    progress(len(episodes) - len(left))
    lengths = dict(zip(left, lengths_of(responder, [episodes[i] for i in left], shown), strict=True))
    left.sort(key=lengths.__getitem__, reverse=True)
    batches = [left[begin : begin + batch_size] for begin in range(0, len(left), batch_size)]
    if left and (common := _common(episodes)):
        responder.remember(examples_of(episodes[0], common, shown, responder.tokenizer))
    n, here = jax.process_count(), jax.process_index()
    own = {}
    for number, batch in enumerate(batches[here::n]):
        some = [episodes[i] for i in batch]
        given = answering(responder, [prompt_of(episode, shown, responder.tokenizer) for episode in some], some)
        new = {asked[i]: answer for i, answer in zip(batch, given, strict=True)}
        answered.add(new)
        own |= new
        progress(sum(map(len, batches[number * n : (number + 1) * n])))
    for answers in processes.gather(own, DAY):  # Hosts may be of unequal speed.
        answered.add(answers, own=False)
    return [answered.get(digest) for digest in asked]


def _common(episodes: Sequence[Episode]) -> int:
    """The number of examples with which all prompts begin."""
    alike = (all(part == parts[0] for part in parts) for parts in zip(*(e.support for e in episodes), strict=False))
    return sum(itertools.takewhile(bool, alike)) if len(episodes) > 1 else 0
