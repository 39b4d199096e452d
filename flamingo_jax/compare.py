"""Two evaluations on the same queries, side by side: is one checkpoint better than the other?

    python -m flamingo_jax.compare A B

A and B are the workdirs of two evaluations with the same tasks. A line shows a setting that both have: the score of
each, and how much higher that of B is, with its 95 % interval over the images asked about. A query that is hard for
one model is mostly hard for the other, so this interval is narrower than those of the scores. A star marks a difference
whose interval excludes 0.

B may be a results file of OpenFlamingo's evaluate.py, or a paper's figures in that form, which are in
experiments/evaluate/published. Then the scores alone are beside each other.
"""

from flamingo_jax import commands
from flamingo_jax.errors import UserError

if __name__ == '__main__':
    FOLDERS = commands.start(__doc__, positional=True)

import json

import numpy as np

from flamingo_jax.evaluation import intervals, results_file
from flamingo_jax.files import as_path

Setting = tuple[str, str, str, int]  # Task, answers, support, shots.
Query = tuple[int, str]  # Seed, id. A game's id is another question at each seed.
Queries = dict[Query, tuple[tuple[str, ...], float]]  # Its clusters, and its score.


def read(folder: str) -> dict[Setting, Queries]:
    """The queries of each setting of an evaluation.

    Raises:
      FileNotFoundError, ValueError: there is no evaluation, or its file is damaged.
    """
    file = as_path(folder) / 'queries.jsonl'
    if not file.is_file():
        raise FileNotFoundError(f'There is no {file}. Give the --workdir of a finished evaluation.')
    settings: dict[Setting, Queries] = {}
    for number, line in enumerate(file.read_text(encoding='utf-8').split('\n'), 1):
        if not line:
            continue
        try:
            query = json.loads(line)
            setting = query['task'], query['answers'], query['support'], query['shots']
            if query['score'] is None:  # The right answers are not published.
                continue
            of = query['seed'], query['id']
            # Without an image, a question of a benchmark is the same at each seed.
            clusters = tuple(query['clusters']) or (f'\0{query["id"]}',)
            found = clusters, float(query['score'])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f'{file}, line {number} is not a query. Evaluate again.') from error
        settings.setdefault(setting, {})[of] = found
    return settings


def compare(first: str, second: str) -> str:
    """A table of the settings that both evaluations have.

    Raises:
      FileNotFoundError, ValueError: a folder is no evaluation, they share no setting, or a setting has other queries;
        or the second is a .json file that is no results file.
    """
    ours = read(first)
    if second.endswith('.json'):
        return _beside_file(ours, second)
    theirs = read(second)
    settings = [setting for setting in ours if setting in theirs]
    if not settings:
        raise UserError(f'{first} and {second} have no setting in common: same task, answers, support and shots.')
    lines = [f'A = {first}', f'B = {second}', f'{"A":>46}{"B":>8}{"B - A":>10}']
    for setting in settings:
        task, answers, support, shots = setting
        a, b = ours[setting], theirs[setting]
        clusters = {of: some for of, (some, _) in a.items()}
        if _partition(a) != _partition(b):
            raise UserError(
                f'{task}, {answers}, {support}, {shots} shots: the two did not ask the same queries '
                f'({len(a)} and {len(b)} queries). Evaluate both with the same config.'
            )
        marks = [{of: score for of, (_, score) in queries.items()} for queries in (a, b)]
        apart, half = intervals.difference(marks[0], marks[1], clusters)
        scores = ''.join(f'{np.mean(list(some.values())):8.3f}' for some in marks)
        star = ' *' if abs(apart) > half else ''
        lines += [f'{task}, {answers}', f'  {support}, {shots} shots, {len(a)} queries'.ljust(38) + scores]
        lines[-1] += f'{apart:+10.3f} ±{half:.3f}{star}'
    return '\n'.join([*lines, '', '* the 95 % interval of the difference excludes 0.', ''])


def _beside_file(ours: dict[Setting, Queries], file: str) -> str:
    scores: dict[str, results_file.Scores] = {}
    for (task, answers, support, shots), queries in ours.items():
        mean = float(np.mean([score for _, score in queries.values()]))
        scores.setdefault(f'{answers}, {support}', {})[task, shots] = mean
    if not (found := results_file.beside(scores, file)):
        raise UserError(f'{file} has no set at a number of shots that was evaluated here.')
    return found


def _partition(queries: Queries) -> dict[Query, tuple[int, ...]]:
    """Which queries share clusters. Their names are paths of images, which may lie elsewhere on another machine."""
    numbers: dict[str, int] = {}
    return {of: tuple(numbers.setdefault(one, len(numbers)) for one in queries[of][0]) for of in sorted(queries)}


def main() -> None:
    """Prints the comparison of the folders on the command line."""
    if len(FOLDERS) != 2:
        commands.refuse(f'Give two folders, the workdirs of two evaluations; there are {len(FOLDERS)}.')
    print(compare(*FOLDERS), end='')


if __name__ == '__main__':
    main()
