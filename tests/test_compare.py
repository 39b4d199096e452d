"""Two evaluations on the same queries, compared by the command on their folders."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from flamingo_jax import compare
from flamingo_jax.evaluation.report import Row, Score, over_seeds, table, write

ROOT = pathlib.Path(__file__).parents[1]


def row(scores, task='vqav2', seed=0, clusters=None) -> Row:
    """A row with these scores of its queries."""
    queries = {
        f'q{i}': dict(clusters=(clusters[i],) if clusters else (), score=float(score), answer='yes')
        for i, score in enumerate(scores)
    }
    model = Score(float(np.mean(scores)), 0.1)
    return Row(task, 'open-ended', 'random', 4, len(scores), {'model': model, 'chance': Score(0.1, 0.0)}, seed, queries)


def folder(path, *rows) -> str:
    write(path, rows, [], {})
    return str(path)


def command(*folders):
    line = [sys.executable, '-m', 'flamingo_jax.compare', *folders]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope='module')
def marks():
    return (np.random.default_rng(0).random(200) < 0.5).astype(float)


def test_a_difference_that_the_scores_alone_would_not_show(tmp_path, marks):
    better = marks.copy()
    better[np.flatnonzero(marks == 0)[:12]] = 1.0
    a, b = folder(tmp_path / 'a', row(marks)), folder(tmp_path / 'b', row(better))
    done = command(a, b)
    assert done.returncode == 0 and not done.stderr
    assert re.search(r'random, 4 shots, 200 queries +\.?0?\.\d{3} +0\.\d{3} +\+0\.060 ±0\.03\d \*', done.stdout), (
        done.stdout
    )
    assert '-0.060 ±0.03' in compare.compare(b, a)
    assert '+0.000 ±0.019\n' in compare.compare(a, a)  # 200 that are all alike do not tell that all others are.


def test_questions_about_one_image_count_as_one(tmp_path, marks):
    better = np.where(np.arange(200) < 12, 1.0, marks)
    images = ['one image'] * 12 + [f'image {i}' for i in range(188)]
    alone = compare.compare(folder(tmp_path / 'a', row(marks)), folder(tmp_path / 'b', row(better)))
    of_one = [folder(tmp_path / name, row(scores, clusters=images)) for name, scores in (('c', marks), ('d', better))]
    assert alone.count('*') == 2 and compare.compare(*of_one).count('*') == 1


def test_the_images_may_lie_elsewhere_on_another_machine(tmp_path, marks):
    here, there = ([f'/{folder}/coco/{i // 2}.jpg' for i in range(200)] for folder in ('a', 'b'))
    folders = [folder(tmp_path / name, row(marks, clusters=of)) for name, of in (('a', here), ('b', there))]
    assert '+0.000 ±0.038' in compare.compare(*folders)  # Of 100 images.
    other = folder(tmp_path / 'c', row(marks, clusters=[f'/b/coco/{i // 4}.jpg' for i in range(200)]))
    with pytest.raises(ValueError, match='same queries'):
        compare.compare(folders[0], other)


def test_seeds_are_averaged_query_by_query(tmp_path, marks):
    rows = [row(marks), row(1 - marks, seed=1)]
    text = compare.compare(folder(tmp_path / 'a', *rows), folder(tmp_path / 'b', *rows))
    assert '   0.500   0.500    +0.000 ±0.019' in text


def test_a_game_at_several_seeds_has_more_queries_and_not_more_images(tmp_path):
    """At another seed, a game's id is another question."""
    rng = np.random.default_rng(0)
    asked = [[f'image {i}' for i in rng.integers(20, size=60)] for _ in range(5)]
    marks = (rng.random((2, 5, 60)) < 0.5).astype(float)
    several = [[row(some, seed=i, clusters=asked[i]) for i, some in enumerate(of_one)] for of_one in marks]
    at_once = [[row(of_one.reshape(-1), clusters=[one for some in asked for one in some])] for of_one in marks]
    text, expected = (
        compare.compare(*(folder(tmp_path / f'{name}{i}', *rows) for i, rows in enumerate(both)))
        for name, both in (('several', several), ('once', at_once))
    )
    assert '300 queries' in text and text.splitlines()[3:] == expected.splitlines()[3:]


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda r: dataclasses.replace(r, task='coco'), 'no setting in common'),
        (lambda r: dataclasses.replace(r, queries=dict(list(r.queries.items())[:-1])), 'same queries'),
        (lambda r: dataclasses.replace(r, seed=1), 'same queries'),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, marks, change, message):
    a, b = folder(tmp_path / 'a', row(marks)), folder(tmp_path / 'b', change(row(marks)))
    with pytest.raises(ValueError, match=message):
        compare.compare(a, b)


def test_a_folder_without_an_evaluation_is_refused(tmp_path, marks):
    a = folder(tmp_path / 'a', row(marks))
    with pytest.raises(FileNotFoundError, match='workdir of a finished evaluation'):
        compare.read(str(tmp_path))
    with open(tmp_path / 'a/queries.jsonl', 'a', encoding='utf-8') as file:
        file.write('{"task": "vqav2"\n')
    with pytest.raises(ValueError, match='line 201 is not a query'):
        compare.read(a)
    done = command(a)
    assert done.returncode == 2 and 'Give two folders' in done.stderr and 'Traceback' not in done.stderr


def test_the_report_shows_how_far_seeds_lie_apart(tmp_path, marks):
    rows = [row(marks[:100] * 0 + value, seed=seed) for seed, value in enumerate((0.25, 0.5, 0.75))]
    (mean,) = over_seeds(rows)
    assert (mean.scores['model'].value, mean.scores['model'].interval) == pytest.approx((0.5, 0.1))
    assert mean.seeds == (0.25, 0.5, 0.75)
    text = table(rows)
    assert '.500 ±.100*' not in text and '.500 ±.100' in text
    assert '3 seeds: .250 .500 .750, deviation .250' in text and len(text.splitlines()) < 12
    written = json.loads(pathlib.Path(folder(tmp_path / 'a', *rows), 'report.json').read_text())['rows']
    assert [r['seed'] for r in written] == [0, 1, 2] and all('queries' not in r for r in written)
    lines = [json.loads(line) for line in (tmp_path / 'a/queries.jsonl').read_text().splitlines()]
    assert len(lines) == 300 and lines[299]['seed'] == 2 and lines[299]['score'] == 0.75 and lines[299]['id'] == 'q99'


def test_one_seed_changes_nothing(marks):
    rows = [row(marks), row(marks, task='coco')]
    assert over_seeds(rows) == rows and 'seeds' not in table(rows)
