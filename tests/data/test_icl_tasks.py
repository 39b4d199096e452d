"""The drawn tasks: the same for a seed, right by their own rules, and read by VL-ICL Bench's reader."""

import hashlib
import json
from typing import Any

import numpy as np
import PIL.Image
import pytest
import scipy.ndimage

from data.icl_tasks.build import PARTS, build
from data.icl_tasks.drawing import COLOURS, SHAPES, Picture
from experiments.evaluate import vl_icl
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.task import make

OPERATIONS = {'+': lambda a, b: a + b, '-': lambda a, b: a - b, 'x': lambda a, b: a * b}


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp('icl') / 'drawn'
    build(folder, 0, 12)
    return folder


def digests(folder):
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def records(drawn, part):
    return [json.loads((drawn / part / f'{name}.json').read_text()) for name in ('query', 'support')]


def test_a_seed_draws_the_same_files_and_another_seed_others(drawn, tmp_path):
    build(tmp_path / 'again', 0, 12)
    build(tmp_path / 'other', 1, 12)
    assert digests(tmp_path / 'again') == digests(drawn)
    assert digests(tmp_path / 'other')['clevr/query.json'] != digests(drawn)['clevr/query.json']
    with pytest.raises(ValueError, match='drawn is not empty'):
        build(drawn, 0, 12)


@pytest.mark.parametrize('part', ['operator_induction', 'operator_induction_interleaved', 'operator_induction_clock'])
def test_results_are_those_of_one_pair_of_numbers(drawn, part):
    """The three results of a demonstration tell its numbers, which must give all of them; queries have others."""
    queries, support = records(drawn, part)
    clock = part.endswith('clock')
    possible = [(a, b) for a in range(12) for b in range(10) if not clock or b]
    by_numbers = {}
    for a, b in possible:
        results = tuple(operation(a, b) % 12 if clock else operation(a, b) for operation in OPERATIONS.values())
        by_numbers.setdefault(results, []).append((a, b))
    assert all(tuple(record['answer']) in by_numbers for record in support)
    asked = [tuple(record['answer'] for record in queries[i : i + 3]) for i in range(0, 12, 3)]
    assert [record['operator'] for record in queries] == ['+', '-', 'x'] * 4
    assert all(results in by_numbers for results in asked)
    if not clock:  # On a clock, two pairs of numbers may have the same results.
        assert not {*asked} & {tuple(record['answer']) for record in support}
        assert min(map(min, asked)) >= 0  # The score reads no sign.


def near(drawn, path, colour):
    """Which pixels are near a colour."""
    pixels = np.asarray(PIL.Image.open(drawn / path), int)
    return np.abs(pixels - np.array(colour)).sum(-1) < 60


def ink(drawn, path, colour):
    """Their share."""
    return float(near(drawn, path, colour).mean())


def test_what_is_counted_is_there(drawn):
    for record in sum(records(drawn, 'clevr'), []):
        what, _, value = record['question'].partition(': ')
        assert 1 <= record['answer'] <= 6
        if what == 'colour':
            blobs: Any = scipy.ndimage.label(near(drawn, record['image'][0], COLOURS[value]))
            sizes = np.bincount(blobs[0].ravel())[1:]
            assert (sizes > 20).sum() == record['answer']


def test_a_red_box_is_around_one_word(drawn):
    queries, support = records(drawn, 'textocr')
    for record in queries + support:
        assert 0.01 < ink(drawn, record['image'][0], (220, 20, 20)) < 0.1
    answers = [record['answer'] for record in queries + support]
    assert len({*answers}) == len(answers)


def test_pairs_that_match_have_one_shape_in_two_colours(drawn):
    queries, support = records(drawn, 'matching_mi')
    assert [record['answer'] for record in queries] == ['yes', 'no'] * 6
    assert all((shot['same']['answer'], shot['diff']['answer']) == ('yes', 'no') for shot in support)
    for record in queries:
        first, second = ({c for c in COLOURS if ink(drawn, path, COLOURS[c]) > 0.02} for path in record['image'])
        assert len(first) == len(second) == 1 and first != second


def test_a_class_of_open_mi_has_one_colour(drawn):
    queries, _ = records(drawn, 'open_mi')
    for record in queries:
        assert len(record['classes']) == 5
        for name, some in record['support'].items():
            paths = some['images'] + record['image'] * (name == record['answer'])
            seen = [tuple(c for c in COLOURS if ink(drawn, path, COLOURS[c]) > 0.02) for path in paths]
            assert len({*seen}) == 1 and len(seen[0]) == 1


def test_shapes_and_hours_look_different():
    seen = set()
    for shape in SHAPES:
        picture = Picture()
        picture.shape(shape, (0.5, 0.5), 0.3, (0, 0, 0))
        seen.add(picture.image.tobytes())
    for hour in range(12):
        picture = Picture()
        picture.clock(hour, (0.5, 0.5), 0.4)
        seen.add(picture.image.tobytes())
    assert len(seen) == len(SHAPES) + 12


def test_every_part_is_read_and_asked(pretrained, drawn):
    c = vl_icl.get_config('drawn')
    c.data = str(drawn)
    assert {*c.tasks} == {*PARTS}
    for part, fields in c.tasks.items():
        asked = make(part, fields.to_dict(), Pools(pretrained, c))
        for shots in fields.shots:
            episodes = list(asked.episodes(100, shots, 'random', 'ranked', 0))
            assert len(episodes) == 12 and all(episode.truth in episode.candidates for episode in episodes)
