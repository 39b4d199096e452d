"""Scores in OpenFlamingo's results file, which its evaluate.py writes with --results_file.

    {"coco": [{"shots": 4, "trials": [88.1, 89.9], "mean": 89.0, "stddev": 0.9}, ...], "flickr30": [...], ...}

CIDEr and VQA accuracy are in percent there, ROC AUC and top-1 are shares of 1. experiments/evaluate/published/ has
published figures in this form: of OpenFlamingo and Flamingo (2308.01390, tables 11 and 12), and of IDEFICS (its model
card).
"""

import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.report import Row, decimals, over_seeds
from flamingo_jax.files import Path, as_path, write_whole

# Our name of a set -> its name there, and the score that is 1 here.
SETS = dict(
    coco=('coco', 100), flickr30k=('flickr30', 100), ok_vqa=('ok_vqa', 100), vqav2=('vqav2', 100),
    textvqa=('textvqa', 100), vizwiz=('vizwiz', 100), hateful_memes=('hateful_memes', 1), imagenet=('imagenet', 1),
)  # fmt: skip
Scores = dict[tuple[str, int], float]  # (our name of a set, shots) -> the mean score, as this project writes it.


def read(file: str | Path) -> Scores:
    """The mean scores of a results file.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it has another form.
    """
    path = as_path(file)
    if not path.is_file():
        raise FileNotFoundError(f'There is no {file}. Give the file of a --results_file of OpenFlamingo.')
    try:
        found = json.loads(path.read_bytes())
        return {
            (name, int(entry['shots'])): float(entry['mean']) / whole
            for name, (theirs, whole) in SETS.items()
            for entry in found.get(theirs, ())
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{file} is not a results file of OpenFlamingo ({type(error).__name__}: {error}). It maps the '
            'name of a set to a list of {"shots": 4, "mean": 89.0}.'
        ) from error


def write(workdir: str | Path, rows: Sequence[Row]) -> list[Path]:
    """Writes the rows of the eight sets, a file for each way to choose demonstrations; a seed is a trial."""
    files = []
    for support in dict.fromkeys(row.support for row in rows):
        found: dict[str, dict[int, list[float]]] = {}
        for row in rows:
            if row.support == support and row.task in SETS and 'model' in row.scores:
                theirs, whole = SETS[row.task]
                found.setdefault(theirs, {}).setdefault(row.shots, []).append(whole * row.scores['model'].value)
        if found:
            content = {
                name: [
                    dict(shots=shots, trials=some, mean=statistics.mean(some), stddev=statistics.pstdev(some))
                    for shots, some in sorted(by_shots.items())
                ]
                for name, by_shots in found.items()
            }
            path = as_path(workdir) / f'open_flamingo_{support.replace(" ", "_")}.json'
            files.append(write_whole(path, (json.dumps(content, indent=1) + '\n').encode()))
    return files


def beside(scores: Mapping[str, Scores], file: str) -> str:
    """A table of scores beside those of a results file; '' if they share no set and number of shots.

    scores: by how they were asked, which a line says after the set, such as 'open-ended, random'.

    Errors as for `read`.
    """
    name, published, lines = pathlib.PurePath(file).stem, read(file), []
    for what, ours in scores.items():
        for (task, shots), score in ours.items():
            if (there := published.get((task, shots))) is not None:
                lines.append(
                    f'  {f"{task}, {what}, {shots} shots":50}{decimals(score):>8}{decimals(there):>{len(name) + 4}}'
                    f'{score - there:+10.3f}'
                )
    if not lines:
        return ''
    return '\n'.join(['', f'{"here":>60}{name:>{len(name) + 4}}{"apart":>10}', *lines]) + '\n'


def of_rows(rows: Sequence[Row]) -> dict[str, Scores]:
    """The means of an evaluation's seeds, for `beside`."""
    scores: dict[str, Scores] = {}
    for row in over_seeds(rows):
        if 'model' in row.scores:
            scores.setdefault(f'{row.answers}, {row.support}', {})[row.task, row.shots] = row.scores['model'].value
    return scores
