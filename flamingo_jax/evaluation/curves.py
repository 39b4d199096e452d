"""Scores over shots: the gain of demonstrations, where it peaks, and what each point costs in tokens and seconds."""

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from flamingo_jax.evaluation import fonts
from flamingo_jax.evaluation.report import COLOURS, Row, decimals, groups, over_seeds


class Curve(NamedTuple):
    """The rows of one task, kind of answers and support, by shots."""

    title: str
    rows: Sequence[Row]

    @property
    def scores(self) -> dict[int, float]:
        """Shots -> the model's score."""
        return {row.shots: row.scores['model'].value for row in self.rows}


def curves(rows: Sequence[Row]) -> Iterator[Curve]:
    """The curves of an evaluation that have two points or more."""
    for (task, answers), group in groups([row for row in over_seeds(rows) if 'model' in row.scores]).items():
        for support in dict.fromkeys(row.support for row in group):
            some = [row for row in group if row.support == support]
            if len(some) > 1:
                yield Curve(f'{task}, {answers}, {support}', some)


def efficiency(scores: Mapping[int, float]) -> float | None:
    """The area between the scores over shots and the line at the zero-shot score, as a share of the whole area.

    The whole area is as wide as the shots, and 1 high. So it is the mean gain over shots, by trapezoids, after the idea
    of VL-ICL Bench (2403.13164). Returns None without the score at 0 shots, or without another.
    """
    if 0 not in scores or len(scores) < 2:
        return None
    shots = sorted(scores)
    gains = [scores[number] - scores[0] for number in shots]
    area = sum(
        (b - a) * (of_a + of_b) / 2 for a, b, of_a, of_b in zip(shots, shots[1:], gains, gains[1:], strict=False)
    )
    return area / shots[-1]


def peak(scores: Mapping[int, float]) -> int:
    """The fewest shots with the highest score."""
    return min(scores, key=lambda number: (-scores[number], number))


def table(rows: Sequence[Row]) -> str:
    """Under each setting, its score and cost at each number of shots; '' if nothing was asked at several."""
    lines = []
    for curve in curves(rows):
        lines += ['', curve.title, f'  {"shots":>5}{"score":>8}{"gain":>8}{"tokens":>9}{"seconds":>10}']
        for row in curve.rows:
            gain = f'{row.scores["model"].value - curve.scores[0]:+.3f}' if 0 in curve.scores else '–'
            seconds = '–' if row.seconds is None else f'{row.seconds:.3f}'
            score = decimals(row.scores['model'].value)
            lines.append(f'  {row.shots:>5}{score:>8}{gain:>8}{row.tokens:>9.1f}{seconds:>10}')
        of_gain = efficiency(curve.scores)
        share = '' if of_gain is None else f', efficiency {of_gain:+.3f}'
        lines.append(f'  peak at {peak(curve.scores)} shots{share}')
    if not lines:
        return ''
    head = (
        "Scores over shots, with the tokens of a prompt and the seconds a query, the model's own and not its controls'"
    )
    return '\n'.join(['', head, *lines]) + '\n'


def chart(rows: Sequence[Row]) -> bytes | None:
    """A PNG with a panel for each setting: the gain is the area; the cost stands below each number of shots.

    None if nothing was asked at several numbers of shots.
    """
    import matplotlib.figure  # Takes a second, so it is imported only for a report.

    panels = list(curves(rows))
    if not panels:
        return None
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    style = {'font.family': fonts.families(), 'font.size': 10, 'axes.spines.top': False, 'axes.spines.right': False}
    with matplotlib.rc_context(style), fonts.told('curves.png'):
        figure = matplotlib.figure.Figure(figsize=(5 * across, 3.6 * down), dpi=110, layout='constrained')
        for number, curve in enumerate(panels, 1):
            axes = figure.add_subplot(down, across, number)
            _panel(axes, curve)
        file = io.BytesIO()
        figure.savefig(file, format='png', facecolor='white')
    return file.getvalue()


def _panel(axes, curve: Curve) -> None:
    # Numbers of shots double. As categories they are evenly spaced, and 0 has a place.
    places, scores = range(len(curve.rows)), [row.scores['model'] for row in curve.rows]
    values = [score.value for score in scores]
    if 0 in curve.scores:
        axes.axhline(curve.scores[0], color='#77777c', linestyle=':', linewidth=1.4)
        axes.fill_between(places, values, curve.scores[0], color=COLOURS['model'], alpha=0.15, linewidth=0)
    low = [min(score.interval, max(score.value, 0)) for score in scores]
    high = [score.interval if score.value > 1 else min(score.interval, 1 - score.value) for score in scores]
    axes.errorbar(places, values, [low, high], color=COLOURS['model'], marker='o', linewidth=2.4, clip_on=False)
    costs = [
        f'{row.shots}\n{row.tokens:.0f}\n{"–" if row.seconds is None else f"{row.seconds:.2f}"}' for row in curve.rows
    ]
    axes.set_xticks(list(places), costs)
    axes.set_xlabel('shots; tokens; seconds a query', fontsize=9)
    axes.set_ylim(0, max(1, 1.1 * max(values)))
    axes.grid(axis='y', color='#e6e6e6', linewidth=0.8)
    axes.set_axisbelow(True)
    of_gain = efficiency(curve.scores)
    said = f'peak at {peak(curve.scores)} shots' + ('' if of_gain is None else f', efficiency {of_gain:+.2f}')
    axes.set_title(f'{textwrap.fill(curve.title, 46)}\n{said}', loc='left', fontsize=10)
