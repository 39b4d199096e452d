"""What a score needs: the model beside its controls on the same questions, and the share of the few-shot gain.

A question that is hard for the model is mostly hard in a control, too. So the interval of a difference is over the
questions' own differences, and narrower than those of the two scores.
"""

from collections.abc import Mapping, Sequence

from flamingo_jax.evaluation import controls, intervals
from flamingo_jax.evaluation.intervals import Clusters
from flamingo_jax.evaluation.report import Row, Score, decimals, groups, over_seeds

Marks = Mapping[str, Mapping[str, float]]  # Name of a control -> id of a question -> its score.
NONE, BROKEN = 'no demonstrations', 'demonstrations shuffled'


def differences(marks: Marks, clusters: Clusters) -> dict[str, Score]:
    """How much higher the model scores than each control, with the paired 95 % interval."""
    return {
        name: Score(*intervals.difference(marks[name], marks['model'], clusters))
        for name in controls.CONTROLS
        if name in marks
    }


def needs_pairs(marks: Marks, clusters: Clusters) -> Score | None:
    """The share of the few-shot gain that needs the demonstrations' image-label pairs (docs/metrics.md).

    (model - demonstrations shuffled) / (model - no demonstrations). It is 1 if all is lost where the demonstrations
    show images of other prompts, with their texts and labels as they were, and 0 if nothing is. Returns None if one of
    the two was not asked, or if the gain is not certain: then a share of it means nothing.
    """
    if NONE not in marks or BROKEN not in marks:
        return None
    gain, half = intervals.difference(marks[NONE], marks['model'], clusters)
    if gain <= half:
        return None
    of_gain = {id: mark - marks[NONE][id] for id, mark in marks['model'].items()}
    needed = {id: mark - marks[BROKEN][id] for id, mark in marks['model'].items()}
    return intervals.ratio(needed, of_gain, clusters)


def table(rows: Sequence[Row]) -> str:
    """Under each task, a line for each control with its score and the model's lead on it; '' without controls."""
    rows = [row for row in over_seeds(rows) if row.leads]
    if not rows:
        return ''
    lines = [
        '',
        "What the score needs: a control's score, and how much higher the model's is, ± half of the paired 95 %",
    ]
    lines += ['interval. A star marks a difference that is certain.']
    for (task, answers), group in groups(rows).items():
        for support in dict.fromkeys(row.support for row in group):
            some = [row for row in group if row.support == support]
            lines += ['', f'{task}, {answers}, {support}']
            lines += [f'  {"shots":24}' + ''.join(f'{row.shots:>22}' for row in some)]
            lines += [f'  {"model":24}' + ''.join(f'{decimals(row.scores["model"].value):>22}' for row in some)]
            for name in controls.CONTROLS:
                if any(name in row.leads for row in some):
                    lines.append(f'  {name:24}' + ''.join(_cell(row, name) for row in some))
            if any(row.pairs for row in some):
                shares = (f'{row.pairs.value:.2f} ±{row.pairs.interval:.2f}' if row.pairs else '–' for row in some)
                lines.append(f'  {"gain that needs pairs":24}' + ''.join(f'{share:>22}' for share in shares))
    return '\n'.join(line.rstrip() for line in lines) + '\n'


def _cell(row: Row, name: str) -> str:
    if name not in row.leads:
        return f'{"–":>22}'
    lead = row.leads[name]
    star = '*' if abs(lead.value) > lead.interval else ' '
    return f'{decimals(row.scores[name].value):>7} {lead.value:+7.3f} ±{decimals(lead.interval)}{star}'.rjust(22)
