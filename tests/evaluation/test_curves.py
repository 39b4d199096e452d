"""Curves over shots: the area of the gain, the peak, and the cost beside each point."""

import dataclasses
import io

import PIL.Image
import pytest

from flamingo_jax.evaluation import curves
from flamingo_jax.evaluation.report import Row, Score

ROW = Row('words', 'ranked', 'random', 0, 60, {'model': Score(0.2, 0.1)}, tokens=10.0, seconds=0.5)


def rows(scores):
    return [
        dataclasses.replace(ROW, shots=shots, scores={'model': Score(score, 0.1)}, tokens=10.0 * (shots + 1))
        for shots, score in scores.items()
    ]


@pytest.mark.parametrize(
    ('scores', 'area'),
    [
        ({0: 0.2, 1: 0.2, 4: 0.2}, 0.0),
        ({0: 0.0, 1: 1.0}, 0.5),  # A triangle.
        ({0: 0.2, 1: 0.6, 2: 0.8, 4: 0.6}, (0.2 + 0.5 + 2 * 0.5) / 4),
        ({0: 0.5, 2: 0.1}, -0.2),
        ({1: 0.5, 2: 0.1}, None),
        ({0: 0.5}, None),
    ],
    ids=str,
)
def test_efficiency_is_the_mean_gain_over_shots(scores, area):
    assert curves.efficiency(scores) == (None if area is None else pytest.approx(area))


def test_the_peak_is_at_the_fewest_shots_of_the_best():
    assert curves.peak({0: 0.1, 4: 0.7, 2: 0.7, 8: 0.3}) == 2


def test_the_table_has_gain_and_cost_of_each_point():
    text = curves.table([*rows({0: 0.2, 1: 0.6, 2: 0.5}), dataclasses.replace(ROW, task='alone')])
    assert '      1    .600  +0.400     20.0     0.500' in text
    assert 'peak at 1 shots, efficiency +0.275' in text and 'alone' not in text
    assert '–' in curves.table([dataclasses.replace(row, seconds=None) for row in rows({0: 0.2, 1: 0.6})])
    assert curves.table([ROW]) == '' and curves.chart([ROW]) is None


def test_the_chart_has_a_panel_for_each_setting():
    some = rows({0: 0.2, 1: 0.6, 2: 0.5})
    sizes = [
        PIL.Image.open(io.BytesIO(curves.chart(shown))).size
        for shown in (some, some + [dataclasses.replace(row, support='rices') for row in some])
    ]
    assert sizes[1][0] == 2 * sizes[0][0]
