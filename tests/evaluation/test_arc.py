"""ARC-AGI, from a file in its form."""

import io
import json

import numpy as np
import PIL.Image
import pytest

from experiments.evaluate import arc
from flamingo_jax.evaluation.datasets.arc import COLOURS, Arc, Grids, written
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.run import measure
from flamingo_jax.evaluation.setting import Setting
from flamingo_jax.evaluation.task import make, task

pytestmark = pytest.mark.usefixtures('quick_compilation')


def pair(rows):
    """An input and its mirror image."""
    return dict(input=rows, output=[row[::-1] for row in rows])


PROBLEMS = {
    'mirror': dict(
        train=[pair([[1, 2], [3, 4]]), pair([[5, 0, 0]]), pair([[7, 8]])], test=[pair([[9, 1]]), pair([[2, 6]])]
    ),
    'one': dict(train=[pair([[1, 2]])], test=[pair([[1, 3]])]),
    'large': dict(train=[pair([[1] * 30] * 30)] * 2, test=[pair([[2] * 30] * 30)]),
}


@pytest.fixture
def folder(tmp_path):
    """What the package holds."""
    (tmp_path / 'arc1.json').write_text(json.dumps(dict(train=PROBLEMS, eval=PROBLEMS)))
    return tmp_path


def opened(pretrained, folder, **fields):
    c = arc.get_config()
    c.data = str(folder)
    return make('arc', task(Arc, **fields).to_dict(), Pools(pretrained, c))


def test_a_problem_is_asked_after_its_own_demonstrations(pretrained, folder):
    episodes = list(opened(pretrained, folder).episodes(10, 2, 'random', answers='ranked', seed=0))
    assert {episode.id for episode in episodes} == {'mirror_0', 'mirror_1'}
    assert {episode.clusters for episode in episodes} == {('mirror',)}
    (episode,) = (episode for episode in episodes if episode.id == 'mirror_0')
    assert [part.text for part in episode.query] == [' Output:'] and episode.truth == '19'
    assert {*episode.candidates} == {'19', '91', '21 43', '005', '87'}
    known = {'12 34': '21 43', '500': '005', '78': '87'}
    assert len({part.key for part in episode.support}) == 2
    for part in episode.support:
        assert part.text == f' Output: {known[written(part.image)]}'


def test_a_grid_is_drawn_cell_by_cell():
    grid = ((1, 2, 3), (0, 5, 9))
    pixels = np.asarray(PIL.Image.open(io.BytesIO(Grids().encoded(grid))))
    assert pixels.shape == (32, 48, 3)
    assert (pixels[7::16, 7::16] == COLOURS[np.array(grid)]).all()


@pytest.mark.parametrize('answers', ['open-ended', 'ranked'])
def test_it_is_evaluated(pretrained, folder, answers):
    c = arc.get_config()
    c.update(episodes=2, max_new_tokens=2, num_beams=1)
    asked = opened(pretrained, folder)
    row, _ = measure(Setting.of(c, asked, 2, 'random', answers), pretrained)
    assert row.scores['input unchanged'].value == 0
    chance = row.scores.get('chance')  # Among the candidates; nothing in the prompt can be copied.
    assert chance is None if answers == 'open-ended' else chance.value == pytest.approx(0.2)


@pytest.mark.parametrize(
    ('contents', 'fields', 'named'),
    [
        (None, {}, 'arc1.json'),
        ([], {}, "no split 'eval'"),
        (dict(eval=dict(a=dict(train=[]))), {}, "problem a is not as the set publishes it: KeyError\\('test'\\)"),
        (dict(eval=dict(a=dict(train=[pair([[10]])], test=[]))), {}, '0 to 9'),
        (dict(eval=dict(a=dict(train=[pair([[1], [1, 2]])], test=[]))), {}, 'no grid'),
        (dict(eval=PROBLEMS), dict(shots=(4,)), 'none of the 3 problems has 4 demonstrations .the most is 3'),
        (dict(eval=PROBLEMS), dict(version='3'), "version is '3'"),
    ],
)
def test_what_is_wrong_is_named(pretrained, tmp_path, contents, fields, named):
    if contents is not None:
        (tmp_path / 'arc1.json').write_text(json.dumps(contents))
    with pytest.raises((FileNotFoundError, ValueError), match=named):
        opened(pretrained, tmp_path, **fields)
