"""How well the probabilities of answers say how many of them are right, and the temperature at which they say it best.

A model's own probabilities rank its answers, and are mostly too high. One number mends that: logits are divided by a
temperature, chosen on answers whose truth is known (Guo et al. 2017, On Calibration of Modern Neural Networks).
"""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation import fonts
from flamingo_jax.evaluation.answers import Generated
from flamingo_jax.evaluation.episode_prompts import frames, prompt_of
from flamingo_jax.evaluation.report import COLOURS, decimals
from flamingo_jax.evaluation.setting import Setting
from flamingo_jax.inference.pretrained import Pretrained

# From 1/2 to 4, in steps of 6 %.
TEMPERATURES = tuple(2.0 ** (step / 12) for step in range(-12, 25))
BINS = 10
LEAST = 1e-6  # A probability is taken to be at least so far from 0 and 1, where its logarithm has no end.


class Answered(NamedTuple):
    """Answers to questions whose truth is known."""

    probabilities: Float[np.ndarray, 't n']  # At each temperature.
    marks: Float[np.ndarray, 'n']  # 1 is right, 0 wrong; a metric may give parts.


def expected_error(probabilities: Float[np.ndarray, 'n'], marks: Float[np.ndarray, 'n'], bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3): |mean probability - mean mark|, over bins of equal width.

    Each bin counts by its share of the answers; 0 is perfect.
    """
    found = _bins(probabilities, marks, bins)
    return sum(share * abs(probability - mark) for share, probability, mark in found)


def accuracy_at(coverage: float, probabilities: Float[np.ndarray, 'n'], marks: Float[np.ndarray, 'n']) -> float:
    """The mean mark of the most probable answers, of which there are so large a share (selective prediction).

    No temperature changes it much: it is about the order.
    """
    kept = max(1, round(coverage * len(marks)))
    return float(marks[np.argsort(-probabilities, kind='stable')[:kept]].mean())


def log_loss(probabilities: Float[np.ndarray, 'n'], marks: Float[np.ndarray, 'n']) -> float:
    """The mean negative logarithm of the probability given to what was true, right or wrong, in nats."""
    p = np.clip(probabilities.astype(np.float64), LEAST, 1 - LEAST)
    return float(-(marks * np.log(p) + (1 - marks) * np.log1p(-p)).mean())


def fit(answered: Answered) -> int:
    """The index of the temperature with the least log loss."""
    return int(np.argmin([log_loss(p, answered.marks) for p in answered.probabilities]))


def ask(
    settings: Sequence[Setting],
    model: Pretrained,
    temperatures: Sequence[float],
    batch_size: int,
    progress: Callable[[int], Any] = lambda _: None,
) -> Answered:
    """Asks open-ended questions; every answer has its mark and its probability at each temperature.

    progress: called with the number of questions that were answered.

    Raises:
      ValueError: a setting is not answered by generation, or its task has no published answers.
    """
    for setting in settings:
        if not isinstance(setting.answering, Generated) or not setting.task.scored:
            raise UserError(
                f'Task {setting}: only open-ended answers with a known truth have probabilities to calibrate. Choose '
                'such tasks, or set --config.tasks.NAME.answers=open-ended.'
            )
    parts = [_ask(setting, model, temperatures, batch_size, progress) for setting in settings]
    probabilities, marks = zip(*parts, strict=True)
    return Answered(np.concatenate(probabilities, axis=1), np.concatenate(marks))


def _ask(setting: Setting, model: Pretrained, temperatures, batch_size: int, progress) -> Answered:
    assert isinstance(setting.answering, Generated)
    episodes, tokenizer, task = setting.episodes(), model.tokenizer, setting.task
    sampling, probabilities, answers = setting.answering.sampling(tokenizer), [], {}
    for begin in range(0, len(episodes), batch_size):
        some = episodes[begin : begin + batch_size]
        # A full batch, so that few programs are compiled.
        prompts = [prompt_of(episode, frames, tokenizer) for episode in (some * batch_size)[:batch_size]]
        written = model.answers(prompts, sampling)
        probabilities.append(model.probabilities(prompts, written, temperatures)[:, : len(some)])
        answers |= {e.id: task.read_answer(w.text) for e, w in zip(some, written, strict=False)}
        progress(len(some))
    _, marks = task.metric(answers, {episode.id: episode.references for episode in episodes})
    return Answered(np.concatenate(probabilities, axis=1), np.array([marks[episode.id] for episode in episodes]))


def table(answered: Answered, temperatures: Sequence[float]) -> str:
    """A line for each temperature: what its probabilities promise, and what was right."""
    head = f'{"temperature":>12}{"promised":>10}{"right":>8}{"error":>8}{"log loss":>10}{"right at 50 %":>15}'
    lines = [f'{len(answered.marks)} answers', head]
    for temperature, p in zip(temperatures, answered.probabilities, strict=True):
        figures = p.mean(), answered.marks.mean(), expected_error(p, answered.marks)
        promised, right, error = map(decimals, map(float, figures))
        loss, half = log_loss(p, answered.marks), decimals(accuracy_at(0.5, p, answered.marks))
        lines.append(f'{temperature:>12.3f}{promised:>10}{right:>8}{error:>8}{loss:>10.3f}{half:>15}')
    return '\n'.join(lines) + '\n'


def chart(answered: Answered, temperatures: Sequence[float]) -> bytes:
    """A PNG: how many answers are right, over how probable they are said to be. On the diagonal, both are the same."""
    import matplotlib.figure  # Takes a second, so it is imported only for a report.

    style = {'font.family': fonts.families(), 'font.size': 10, 'axes.spines.top': False, 'axes.spines.right': False}
    with matplotlib.rc_context(style), fonts.told('calibration.png'):
        figure = matplotlib.figure.Figure(figsize=(5, 4.4), dpi=110, layout='constrained')
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color='#77777c', linestyle=':', linewidth=1.4)
        colours = ('#9a9aa0', COLOURS['model'])
        for temperature, p, colour in zip(temperatures, answered.probabilities, colours, strict=False):
            shares, said, right = zip(*_bins(p, answered.marks, BINS), strict=True)
            axes.plot(said, right, color=colour, linewidth=2, label=f'temperature {temperature:.2f}', clip_on=False)
            axes.scatter(said, right, [400 * share for share in shares], color=colour, alpha=0.6, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel='probability', ylabel='share that is right')
        axes.legend(frameon=False, loc='upper left')
        axes.set_title(
            f'{len(answered.marks)} answers; a disc is a tenth of the scale, its area their share', fontsize=9
        )
        file = io.BytesIO()
        figure.savefig(file, format='png', facecolor='white')
    return file.getvalue()


def _bins(probabilities, marks, bins: int) -> Iterator[tuple[float, float, float]]:
    """(share of the answers, mean probability, mean mark) of each bin that has answers."""
    places = np.minimum((probabilities * bins).astype(int), bins - 1)
    for place in np.unique(places):
        inside = places == place
        yield float(inside.mean()), float(probabilities[inside].mean()), float(marks[inside].mean())
