"""The report of an evaluation: its scores as text, as data and as a chart, and examples of prompts.

    report.txt           the table printed by the command
    report.json          the scores, and how they were obtained
    queries.jsonl        a line for each query of each row: its score, the model's answer, the truth, the ids of its
                         examples, and all that it takes to score it again (see `compare.py`)
    report.png           score against shots, as in figure 2 (right) of the paper
    curves.png           the model's score against shots with its gain and its cost (see `curves.py`)
    contact_sheet.html   examples, right and wrong (see `contact_sheet.py`)

A few-shot score means little alone. The language model may know the task (text only), the words of the support may
suffice (shuffled images), or the frozen trunk alone may do as well (nearest centroid, nearest neighbour). So every
row shows these baselines, and is marked only if its 95 % interval lies above chance and above the interval of shuffled
images. If there are several seeds, a row is their mean, with how far they lie apart.
"""

import dataclasses
import importlib.util
import io
import json
import math
import os
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation import contact_sheet, fonts
from flamingo_jax.evaluation.contact_sheet import Example
from flamingo_jax.files import Path, as_path, write_whole
from flamingo_jax.parallel import processes

# The scores in the order of the table, with their colours in the chart, which are safe for colour-blind readers.
COLOURS = {
    'model': '#0b5cad',
    'any candidate': '#5a9bd8',  # Open-ended answers that are some name in the prompt's language, right or wrong.
    'shuffled images': '#d1495b',
    'text only': '#dd9a2b',
    'told the names': '#6c8f2f',  # The language model alone, which reads what each image shows.
    'nearest centroid': '#2f8f6b',
    'nearest neighbour': '#8b6bb1',
    'majority answer': '#8a6d3b',
    'chance': '#77777c',
}
OTHER_COLOUR = '#a0a0a4'  # Scores that are not in the list above.
SETTING = ('task', 'answers', 'support', 'shots', 'seed')  # The fields of a row that say what was asked.


@dataclasses.dataclass(frozen=True)
class Score:
    """The value of a metric on a set, with the half-width of its 95 % interval; ValueError if either is not finite.

    Shares are fractions of 1. CIDEr exceeds 1.
    """

    value: float
    interval: float  # 0.0 if there is none (chance).

    def __post_init__(self):
        if not math.isfinite(self.value) or not 0 <= self.interval < math.inf:
            raise UserError(
                f'A score must be a finite number with a finite interval, 0 or more; it is {self.value} '
                f'±{self.interval}.'
            )

    @property
    def low(self) -> float:
        return self.value - self.interval

    @property
    def high(self) -> float:
        return self.value + self.interval


@dataclasses.dataclass(frozen=True)
class Row:
    """All scores of one task at one number of shots."""

    task: str
    answers: str  # 'ranked' (close-ended, by log-likelihood), 'open-ended' (generated), or the task's own kind.
    support: str  # 'random', 'fixed', 'rices' or 'rices by clip'
    shots: int  # Per class in n-way tasks.
    episodes: int
    scores: dict[str, Score]  # Names as in COLOURS; some may be missing.
    seed: int = 0  # Of the examples.
    # Id of a query -> its `clusters` (queries that share one are not independent), the model's `score` and `answer`,
    # the `metric`, and what this needs to score it again: `references`, and `likelihoods` or `found` in place of the
    # answer. Then its `truth` as a report shows it, its `types`, and the ids of its `examples`.
    queries: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    seeds: tuple[float, ...] = ()  # In a mean of several seeds: the model's score at each.
    by_type: str = ''  # The scores of each type of question, as the set's own script prints them.
    # How much higher the model scores than each control, on the same questions; and the share of the few-shot gain that
    # needs the demonstrations' image-label pairs, if it is known (paired.py).
    leads: dict[str, Score] = dataclasses.field(default_factory=dict)
    pairs: Score | None = None
    tokens: float = 0.0  # Of a prompt, on average.
    seconds: float | None = (
        None  # A query, without its controls; None if the answers were kept from an earlier command.
    )

    @property
    def above(self) -> bool:
        """Whether the model's interval lies above chance and above the interval of shuffled images.

        False if one of the three was not measured.
        """
        try:
            model, shuffled, chance = (self.scores[name] for name in ('model', 'shuffled images', 'chance'))
        except KeyError:
            return False
        return model.low > max(shuffled.high, chance.high)


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """One row for each setting: the mean of its seeds. A setting with one seed stays as it is.

    The interval of the mean is the mean interval, since all seeds ask the same queries. It is too wide, not too narrow,
    where they ask others.
    """
    settings: dict[tuple[str, str, str, int], list[Row]] = {}
    for row in rows:
        settings.setdefault((row.task, row.answers, row.support, row.shots), []).append(row)
    means = []
    for same in settings.values():
        if len(same) > 1:
            scores, leads = _means([row.scores for row in same]), _means([row.leads for row in same])
            pairs = _means([{'': row.pairs} if row.pairs else {} for row in same]).get('')
            seeds = tuple(row.scores['model'].value for row in same) if 'model' in scores else ()
            mean = dataclasses.replace(same[0], scores=scores, leads=leads, pairs=pairs, seeds=seeds, queries={})
            same = [dataclasses.replace(mean, tokens=statistics.mean(row.tokens for row in same))]
        means += same
    return means


def _means(scores: Sequence[Mapping[str, Score]]) -> dict[str, Score]:
    """The mean of each score that all of them have, and of its interval."""
    return {
        name: Score(
            statistics.mean(one[name].value for one in scores), statistics.mean(one[name].interval for one in scores)
        )
        for name in scores[0]
        if all(name in one for one in scores)
    }


class Files(NamedTuple):
    """The paths of the four files that are to be looked at."""

    json: Path
    text: Path
    chart: Path | None  # None without Matplotlib.
    contact_sheet: Path


def write(
    folder: str | os.PathLike, rows: Sequence[Row], examples: Sequence[Example], about: dict[str, Any], more: str = ''
) -> Files:
    """Writes the files into `folder`, which is created if needed.

    about: checkpoint, checksums, digests of annotation files, what was left out, config, seed, wall seconds, machine
      kind, versions and so on, for report.json. Numpy scalars become numbers, and what JSON cannot hold becomes its
      `str`.

    more: text below the table.

    Each file appears whole or not at all; files of an earlier evaluation are replaced. The scores are written first,
    so that an error in an image cannot lose them. Raises `ImageError` if an image of an example cannot be read.
    """
    folder = as_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({key: getattr(row, key) for key in SETTING} | dict(id=id) | query, ensure_ascii=False) + '\n'
        for row in rows
        for id, query in row.queries.items()
    ]
    # `seeds` belongs to the mean over seeds, which is no row of its own. To copy all queries would take long.
    as_dicts = [dataclasses.asdict(dataclasses.replace(row, queries={})) for row in rows]
    as_dicts = [
        {key: value for key, value in row.items() if key not in ('seeds', 'queries', 'seconds')} for row in as_dicts
    ]
    if lines:
        write_whole(folder / 'queries.jsonl', ''.join(lines).encode())
    else:
        (folder / 'queries.jsonl').unlink(missing_ok=True)
    means = over_seeds(rows)
    return Files(
        json=write_whole(folder / 'report.json', as_json({'about': about, 'rows': as_dicts}).encode()),
        text=write_whole(folder / 'report.txt', (table(rows) + more + by_type(rows) + _left_out(about)).encode()),
        chart=_write_chart(folder / 'report.png', means),
        contact_sheet=write_whole(folder / 'contact_sheet.html', contact_sheet.page(examples).encode()),
    )


def _write_chart(path: Path, means: Sequence[Row]) -> Path | None:
    """Draws the chart; None without Matplotlib, since scores that took hours are worth more than it."""
    if importlib.util.find_spec('matplotlib') is None:
        path.unlink(missing_ok=True)  # Of an earlier evaluation.
        processes.say(f"There is no {path.name}, which needs Matplotlib: pip install 'flamingo_jax[plots]'")
        return None
    return write_whole(path, _chart(means))


def by_type(rows: Sequence[Row]) -> str:
    """The scores of each type of question, in percent, under the settings that have some."""
    return ''.join(
        f'\n{row.task}, {row.answers}, {row.support}, {row.shots} shots, seed {row.seed}\n{row.by_type}\n'
        for row in rows
        if row.by_type
    )


def _left_out(about: Mapping[str, Any]) -> str:
    """A line for each split of which questions are left out, since their files are missing."""
    return ''.join(
        f'{task}: {number["questions"]} questions of the split {split!r} are left out, since {number["files"]} files '
        'are missing or damaged.\n'
        for task, splits in about.get('left_out', {}).items()
        for split, number in splits.items()
    )


def table(rows: Sequence[Row]) -> str:
    """The scores as text: under each task a line for each support and number of shots, with a column for each score.

    Tasks keep the order in which they first appear. A score that no row has gets no column; a missing score is a dash.
    The table is about 110 characters wide with all six scores.
    """
    if not rows:
        return 'Nothing was evaluated.\n'
    rows = over_seeds(rows)
    columns = _score_names(rows)
    # Names of two words take two lines, which makes a column as narrow as its numbers.
    heads = [name.rsplit(' ', 1) if ' ' in name else ['', name] for name in columns]
    bare = [name for name in columns if not any(name in row.scores and row.scores[name].interval for row in rows)]
    wide = max(len('support'), *(len(row.support) for row in rows))
    lines = [
        ' ' * (wide + 20) + ''.join(f'{upper:>12} ' for upper, _ in heads),
        f'{"support":{wide + 2}}{"shots":>7}{"episodes":>11}' + ''.join(f'{lower:>12} ' for _, lower in heads),
    ]
    for (task, answers), group in groups(rows).items():
        lines += ['', f'{task}, {answers}']
        for row in group:
            lines.append(f'  {row.support:{wide}}{row.shots:>7}{row.episodes:>11}')
            for name in columns:
                cell = _cell(row.scores.get(name), '' if name in bare else ' ' * 6)
                lines[-1] += f'{cell:>12}' + ('*' if name == 'model' and row.above else ' ')
            if row.seeds:
                apart = decimals(statistics.stdev(row.seeds))
                lines.append(f'{"":11}{len(row.seeds)} seeds: {" ".join(map(decimals, row.seeds))}, deviation {apart}')
    lines += ['', '± half of the 95 % interval over images asked about. Shots of n-way tasks are per class.']
    if not all(row.scores for row in rows):
        lines += [
            "Rows without a score: the right answers are not published. The model's are in queries.jsonl, and in "
            "results/ as the set's server takes them, if it has one."
        ]
    if any(row.seeds for row in rows):
        lines += [
            "A row is the mean over the seeds; below it, the model's score at each, and their standard deviation."
        ]
    if any(row.above for row in rows):
        lines += ["* the model's interval lies above chance and above the interval of shuffled images."]
    return '\n'.join(line.rstrip() for line in lines) + '\n'


def _cell(score: Score | None, no_interval: str) -> str:
    """'.795 ±.025', or a dash. `no_interval` replaces a missing interval, so that digits align."""
    if score is None:
        return '–' + no_interval
    return decimals(score.value) + (f' ±{decimals(score.interval)}' if score.interval else no_interval)


def decimals(fraction: float) -> str:
    """A score as tables show it: `.795`."""
    return f'{fraction:.3f}'.removeprefix('0')


def _score_names(rows: Sequence[Row]) -> list[str]:
    """The scores of the table and the chart. Other controls are in a table of their own (paired.py)."""
    present = dict.fromkeys(name for row in rows for name in row.scores if name in COLOURS or name not in row.leads)
    return [name for name in COLOURS if name in present] + [name for name in present if name not in COLOURS]


def groups(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each task and kind of answers, by support and shots."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.task, row.answers), []).append(row)
    return {key: sorted(group, key=lambda row: (row.support, row.shots)) for key, group in found.items()}


def _chart(rows: Sequence[Row]) -> bytes:
    """A PNG with a panel for each task and kind of answers. Colours show the kind of score, dashes RICES."""
    import matplotlib.figure  # Takes a second, so it is imported only for a report.

    panels = groups(rows)
    down = max(math.ceil(len(panels) / 3), 1)
    across = max(math.ceil(len(panels) / down), 1)  # Makes the rows as equal as possible.
    style = {'font.family': fonts.families(), 'font.size': 10, 'axes.spines.top': False, 'axes.spines.right': False}
    with matplotlib.rc_context(style), fonts.told('report.png'):
        # A Figure of its own, without pyplot: no display and no global state. It renders with Agg.
        figure = matplotlib.figure.Figure(
            figsize=(max(4.1 * across, 7.5), 3.3 * down + 0.9), dpi=110, layout='constrained'
        )
        if not panels:
            figure.text(0.5, 0.5, 'Nothing was evaluated.', ha='center', va='center')
        for i, ((task, answers), group) in enumerate(panels.items()):
            axes = figure.add_subplot(down, across, i + 1)
            _panel(axes, group)
            title = textwrap.fill(f'{task}, {answers}', 38)  # No wider than the panel.
            axes.set_title(title, loc='left', fontsize=11, fontweight='bold')
            if i % across == 0:
                axes.set_ylabel('score')
            if i + across >= len(panels):
                axes.set_xlabel('shots (of n-way tasks: per class)')
        if panels:
            figure.legend(handles=_legend(rows), loc='outside upper center', ncols=4, frameon=False, handlelength=2.6)
        file = io.BytesIO()
        figure.savefig(file, format='png', facecolor='white')
    return file.getvalue()


def _panel(axes, group: list[Row]) -> None:
    # Numbers of shots double. As categories they are evenly spaced, and 0 has a place.
    places = {shots: place for place, shots in enumerate(sorted({row.shots for row in group}))}
    names = _score_names(group)
    for support in dict.fromkeys(row.support for row in group):
        for i, name in enumerate(names):
            line = [row for row in group if row.support == support and name in row.scores]
            at, scores = [places[row.shots] for row in line], [row.scores[name] for row in line]
            if not line:
                continue
            if name == 'chance':  # From edge to edge of the panel.
                values = [score.value for score in scores]
                axes.plot([at[0] - 0.35, *at, at[-1] + 0.35], [values[0], *values, values[-1]], **_look(name, support))
                continue
            # Shifted a little, so that error bars do not hide each other.
            nudge = 0 if name == 'model' else 0.04 * (i - len(names) / 2)
            # The interval is symmetric and may go beyond 0 and 1, where no share can be.
            below = [min(score.interval, max(score.value, 0)) for score in scores]
            beyond = [score.interval if score.value > 1 else min(score.interval, 1 - score.value) for score in scores]
            axes.errorbar(
                [place + nudge for place in at],
                [score.value for score in scores],
                [below, beyond],
                zorder=4 if name == 'model' else 2,
                elinewidth=1.4 if name == 'model' else 0.8,
                clip_on=False,
                **_look(name, support),
            )
    axes.set_xticks(list(places.values()), [str(shots) for shots in places])
    axes.set_xlim(-0.35, len(places) - 0.65)
    highest = max((score.value for row in group for score in row.scores.values()), default=0)
    if highest <= 1:
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ['0', '.25', '.5', '.75', '1'])
    else:  # CIDEr.
        axes.set_ylim(0, 1.1 * highest)
    axes.grid(axis='y', color='#e6e6e6', linewidth=0.8)
    axes.set_axisbelow(True)


def _look(name: str, support: str) -> dict[str, Any]:
    colour = COLOURS.get(name, OTHER_COLOUR)
    if name == 'chance':
        return {'color': colour, 'linestyle': ':', 'linewidth': 1.4}
    return {
        'color': colour,
        'linestyle': {'rices': '--', 'rices by clip': (0, (2, 1)), 'fixed': '-.'}.get(support, '-'),
        'linewidth': 2.6 if name == 'model' else 1.1,
        'marker': 'o',
        'markersize': 6 if name == 'model' else 3.5,
        'markerfacecolor': colour if support == 'random' else 'white',
    }


def _legend(rows: Sequence[Row]) -> list[Any]:
    from matplotlib.lines import Line2D

    supports = {row.support for row in rows}
    names = _score_names(rows)
    lines = [Line2D([], [], label=name, **_look(name, 'random')) for name in names]
    # The legend explains the dashes once, with the first score's line.
    first = names[0] if names else 'model'
    labels = dict(fixed='the same examples (dots and dashes)', rices='RICES (dashed)')
    labels['rices by clip'] = 'RICES by CLIP (dotted)'
    for support, label in labels.items():
        if support in supports:
            lines.insert(1, Line2D([], [], label=f'{first}, {label}', **_look(first, support)))
    return lines


def as_json(value: Any) -> str:
    """A config or score as JSON values; a class becomes its name."""

    def plain(other):
        if isinstance(other, type):
            return f'{other.__module__}.{other.__qualname__}'
        # Scalars of numpy and jax; paths, dtypes and whatever else a config holds.
        return other.item() if hasattr(other, 'item') and getattr(other, 'ndim', 0) == 0 else str(other)

    return json.dumps(value, default=plain, indent=2, ensure_ascii=False) + '\n'
