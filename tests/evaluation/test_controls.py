"""Each control changes what it says of a question, and nothing else; and what is made of their scores."""

import dataclasses

import numpy as np
import PIL.Image
import pytest

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation import controls, intervals, paired
from flamingo_jax.evaluation.report import Row, Score
from flamingo_jax.evaluation.task import make, task
from flamingo_jax.tasks.which import Which
from flamingo_jax.tasks.words import Words
from tests.evaluation.test_tasks import KINDS, Pools

BY = 'model', *controls.CONTROLS


@pytest.fixture(scope='module')
def episodes():
    words = make('words', task(Words, ways=3, shots=(2,), query_styles=('fluent-3d',)).to_dict(), Pools())
    return list(words.episodes(30, 2, 'random', 'ranked', seed=0))


def asked(name, episodes):
    """(question, question of the control) pairs, after what holds for all controls."""
    changed = controls.asked_as(name, episodes, 0)
    for before, after in zip(episodes, changed, strict=True):
        same = 'truth', 'candidates', 'references', 'id', 'clusters'
        assert all(getattr(before, field) == getattr(after, field) for field in same)
        assert [part.text for part in before.query] == [part.text for part in after.query]
    assert changed == controls.asked_as(name, episodes, 0)
    return list(zip(episodes, changed, strict=True))


def images(parts):
    return [part.key for part in parts]


def texts(parts):
    return [part.text for part in parts]


def labels(episode):
    return [part.label for part in episode.support]


@pytest.mark.parametrize(
    ('name', 'support', 'query'),
    [
        ('shuffled images', False, False),
        ('demonstrations shuffled', False, True),
        ('demonstrations blank', False, True),
        ('query shuffled', True, False),
        ('text only', False, False),
        ('random labels', True, True),
        ('flipped labels', True, True),
        ('format alone', False, True),
    ],
)
def test_which_images_stay(episodes, name, support, query):
    for before, after in asked(name, episodes):
        assert (images(before.support) == images(after.support)) == support
        assert (images(before.query) == images(after.query)) == query


@pytest.mark.parametrize('name', ['demonstrations shuffled', 'demonstrations blank', 'query shuffled', 'text only'])
def test_controls_of_images_leave_all_texts(episodes, name):
    assert all(texts(before.parts) == texts(after.parts) for before, after in asked(name, episodes))


def test_random_labels_are_candidates_drawn_evenly(episodes):
    right = []
    for before, after in asked('random labels', episodes):
        assert set(labels(after)) <= set(before.candidates)
        assert all(part.text == f' {part.label}' for part in after.support)
        right += [a == b for a, b in zip(labels(before), labels(after), strict=True)]
    assert np.mean(right) == pytest.approx(1 / 3, abs=0.12)


def test_flipped_labels_are_one_permutation_without_a_fixed_point(episodes):
    for before, after in asked('flipped labels', episodes):
        pairs = set(zip(labels(before), labels(after), strict=True))
        assert len(pairs) == len(dict(pairs)) == len({b for _, b in pairs}) == 3  # A bijection of three words.
        assert all(a != b for a, b in pairs)
    same = [dataclasses.replace(episodes[0], id=str(i)) for i in range(3)]
    assert len({tuple(labels(after)) for _, after in asked('flipped labels', same)}) == 1


def test_labels_come_from_the_set_where_there_are_no_candidates(episodes):
    free = [dataclasses.replace(episode, candidates=()) for episode in episodes]
    every = {label for episode in episodes for label in labels(episode)}
    for name in ('random labels', 'flipped labels'):
        new = {label for _, after in asked(name, free) for label in labels(after)}
        assert new <= every and len(new) > 10


def test_the_format_alone_has_neither_labels_nor_images(episodes):
    for before, after in asked('format alone', episodes):
        assert texts(after.support) == [' ...'] * len(before.support)
        assert not any(np.any(part.of.frames(part.image)) for part in after.support)
        shapes = [[np.shape(part.of.frames(part.image)) for part in one.support] for one in (before, after)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize('where', ['first', 'middle', 'last'])
def test_the_relevant_demonstrations_are_moved_together(episodes, where):
    for before, after in asked(f'relevant {where}', episodes):
        places = [i for i, label in enumerate(labels(after)) if label == before.truth]
        assert places == {'first': [0, 1], 'middle': [2, 3], 'last': [4, 5]}[where]
        assert sorted(texts(before.support)) == sorted(texts(after.support))
        others = [[p.key for p in one.support if p.label != before.truth] for one in (before, after)]
        assert others[0] == others[1]


def test_a_demonstration_of_several_images_is_moved_as_one():
    which = make('which', task(Which, kinds=KINDS, questions='which', shots=(3,)).to_dict(), Pools())
    moved = 0
    for before, after in asked('relevant last', list(which.episodes(10, 3, 'random', 'ranked', seed=0))):
        assert [len(one) for one in controls.demonstrations(before)] == [3, 3, 3]
        keys = [
            sorted(str([*map(str, images(one)), *texts(one)]) for one in controls.demonstrations(e))
            for e in (before, after)
        ]
        assert keys[0] == keys[1]
        moved += labels(before) != labels(after)
    assert moved


def test_no_demonstrations_is_the_query_alone(episodes):
    assert all(after.parts == before.query for before, after in asked('no demonstrations', episodes))


def test_images_of_another_set_are_those_of_a_folder(episodes, tmp_path):
    with pytest.raises(UserError, match='other_images'):
        controls.asked_as('images of another set', episodes, 0)
    with pytest.raises(UserError, match='no image'):
        controls.of_folder(str(tmp_path))
    for name in 'ab':
        PIL.Image.new('RGB', (8, 8), 'red').save(tmp_path / f'{name}.png')
    changed = controls.asked_as('images of another set', episodes, 0, controls.of_folder(str(tmp_path)))
    assert {part.key.name for episode in changed for part in episode.support} == {'a.png', 'b.png'}
    assert all(texts(before.parts) == texts(after.parts) for before, after in zip(episodes, changed, strict=True))


def test_names_of_controls():
    assert controls.names_of(['text only', 'shuffled images']) == controls.DEFAULT
    assert set(controls.names_of(['all'])) == {*controls.CONTROLS} - {'images of another set'}
    assert {paired.NONE, paired.BROKEN} <= set(controls.names_of(['gain']))
    with pytest.raises(UserError, match="'shufled'"):
        controls.names_of(['shufled'])


def marks(model, none, broken):
    of = dict(zip(('model', paired.NONE, paired.BROKEN), (model, none, broken), strict=True))
    return {name: {str(i): float(mark) for i, mark in enumerate(some)} for name, some in of.items()}


def test_the_share_of_the_gain_that_needs_the_pairs():
    rng = np.random.default_rng(0)
    clusters = {str(i): () for i in range(400)}
    model, none = rng.random(400) < 0.9, rng.random(400) < 0.3
    assert paired.needs_pairs(marks(model, none, none), clusters).value == 1
    assert paired.needs_pairs(marks(model, none, model), clusters).value == 0
    half = paired.needs_pairs(marks(model, none, np.where(np.arange(400) % 2, model, none)), clusters)
    assert half.value == pytest.approx(0.5, abs=0.1) and 0.03 < half.interval < 0.15
    assert paired.needs_pairs(marks(model, model, none), clusters) is None  # No gain.
    assert paired.needs_pairs({'model': {}}, clusters) is None


def test_the_interval_of_the_share_holds_the_truth():
    rng, held = np.random.default_rng(0), 0
    clusters = {str(i): () for i in range(200)}
    for _ in range(200):
        model, none = rng.random(200) < 0.8, rng.random(200) < 0.2
        broken = np.where(rng.random(200) < 0.25, model, none)
        share = paired.needs_pairs(marks(model, none, broken), clusters)
        held += abs(share.value - 0.75) < share.interval
    assert held >= 183  # Of 190 that are expected.


def test_a_ratio_of_nothing_is_refused():
    with pytest.raises(UserError, match='above 0'):
        intervals.ratio({'a': 1.0}, {'a': 0.0}, {'a': ()})


def test_the_table_shows_leads_and_the_share():
    scores = {'model': Score(0.8, 0.1), 'random labels': Score(0.3, 0.1)}
    leads = {'random labels': Score(0.5, 0.08)}
    row = Row('words', 'ranked', 'random', 1, 60, scores, leads=leads, pairs=Score(0.86, 0.3))
    text = paired.table([row, dataclasses.replace(row, seed=1)])
    assert 'random labels              .300  +0.500 ±.080*' in text and '0.86 ±0.30' in text
    assert paired.table([dataclasses.replace(row, leads={}, pairs=None)]) == ''
