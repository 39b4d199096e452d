"""The tables of research/small_model.md, from the reports that `research/results.sh` left.

python -m research.results WORK
"""

import json
import pathlib
import sys
from collections.abc import Sequence

SCORES = (
    'model',
    'any candidate',
    'shuffled images',
    'text only',
    'nearest centroid',
    'nearest neighbour',
    'majority answer',
    'chance',
)


def reports(work: pathlib.Path, part: str) -> dict[str, dict]:
    """Run -> its report of this part of the evaluation."""
    files = sorted(work.glob(f'evaluations/*/{part}/report.json'))
    return {file.parents[1].name: json.loads(file.read_text()) for file in files}


def table(rows: Sequence[dict]) -> str:
    """The scores of one report, a line a setting."""
    columns = [name for name in SCORES if any(name in row['scores'] for row in rows)]
    lines = []
    for row in rows:
        cells = [_cell(row['scores'].get(name)) for name in columns]
        lines.append([row['task'], row['answers'], row['support'], str(row['shots']), f'{row["episodes"]:,}', *cells])
    return _markdown(['task', 'answers', 'support', 'shots', 'episodes', *columns], lines)


def seeds_table(by_run: dict[str, dict]) -> str:
    """One setting of several runs: the mean over the runs, each run, and the baselines of the first."""
    others = SCORES[2:]
    lines = []
    for rows in zip(*(report['rows'] for report in by_run.values()), strict=True):
        models = [row['scores']['model'] for row in rows]
        mean = sum(model['value'] for model in models) / len(models)
        cells = [_cell(rows[0]['scores'].get(name)) for name in others]
        each = ', '.join(map(_cell, models))
        lines.append([rows[0]['task'], str(rows[0]['shots']), f'**{mean:.3f}**', each, *cells])
    return _markdown(['task', 'shots', 'mean of the runs', 'each run', *others], lines)


def ablations_table(by_run: dict[str, dict]) -> str:
    """A line a run, `base` first: the model's score in each setting."""
    names = ['base', *(name for name in by_run if name != 'base')]
    settings = [f'{row["task"]}, {row["shots"]} shots' for row in by_run['base']['rows']]
    lines = [[name, *(_cell(row['scores']['model']) for row in by_run[name]['rows'])] for name in names]
    return _markdown(['run', *settings], lines)


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = ['| ' + ' | '.join(cells) + ' |' for cells in (head, *lines)]
    return '\n'.join([rows[0], '|---' * len(head) + '|', *rows[1:]])


def _cell(score: dict | None) -> str:
    if score is None:
        return ''
    return f'{score["value"]:.3f}' + (f' ±{score["interval"]:.3f}' if score['interval'] else '')


def main() -> None:
    """Prints every table that there is a report for."""
    work = pathlib.Path(sys.argv[1])
    if seeds := {name: report for name, report in reports(work, 'words').items() if name.startswith('words')}:
        print(f'## New words: runs {", ".join(seeds)}\n\n{seeds_table(seeds)}\n')
    for part in ('names', 'tasks', 'languages', 'scenes', 'clips', 'stills'):
        for name, report in reports(work, part).items():
            about = report['about']
            print(f'## {part}: {name}, step {about["step"]}, {about["seconds"]} s, {about["machine"]}\n')
            print(table(report['rows']) + '\n')
    if 'base' in (ablations := reports(work, 'ablation')):
        print(f'## Ablations\n\n{ablations_table(ablations)}\n')
    if (times := work / 'times.tsv').is_file():
        print('## Seconds of each command\n\n```\n' + times.read_text() + '```')


if __name__ == '__main__':
    main()
