"""Episodes over the embedded sample: what a prompt may and may not contain."""

import functools

import numpy as np
import pytest

from flamingo_jax.evaluation.tasks import Task, TaskConfig
from flamingo_jax.inputs.picture_set import PictureSet

SAMPLE = 'data/picture_dictionary/sample'


@pytest.fixture(scope='module')
def open_split():
    """Pictures of a split, with random features in which all pictures of a concept are near each other."""

    @functools.cache
    def open_split(split):
        pictures = PictureSet(SAMPLE, split, image_size=8)
        rng = np.random.default_rng(0)
        of_concept = {concept: rng.normal(size=32) for concept in sorted(pictures.by_concept)}
        rows = np.stack([of_concept[p.concept] + 0.1 * rng.normal(size=32) for p in pictures.pictures])
        return pictures, (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    return open_split


def new_words(open_split, **changes):
    return Task('words', TaskConfig(query_styles=('fluent-3d',), **changes), open_split)


def names(open_split, **changes):
    fields = dict(ways=0, shots=(0, 4), query_split='validation', support_split='train') | changes
    return Task('names', TaskConfig(**fields), open_split)


def test_new_words_are_bound_by_the_prompt_alone(open_split):
    task, words = new_words(open_split, ways=5, shots=(1, 2)), set()
    for episode in task.episodes(50, 2, 'random', seed=0):
        assert len(episode.support) == 10 and len(set(episode.candidates)) == 5
        labels = {picture.concept: label for picture, label in episode.support}
        assert len(labels) == len(set(labels.values())) == 5
        assert labels[episode.query.concept] == episode.truth
        assert episode.query.style == 'fluent-3d'
        assert all(picture.style != 'fluent-3d' for picture, _ in episode.support)
        assert task.nearest(episode) == (episode.truth, episode.truth)
        words |= set(episode.candidates)
    assert len(words) > 100  # Drawn anew each time.
    assert task.chance == 0.2


def test_other_shots_ask_the_same_queries_of_the_same_words(open_split):
    task = new_words(open_split, ways=3, shots=(1, 2))
    for one, two in zip(task.episodes(20, 1, 'random', 5), task.episodes(20, 2, 'random', 5), strict=True):
        assert (one.query, one.truth, one.candidates) == (two.query, two.truth, two.candidates)


def test_names_never_show_the_query_itself(open_split):
    task = names(open_split, query_split='validation', support_split='validation')
    for support in ('random', 'rices'):
        for episode in task.episodes(30, 4, support, seed=1):
            assert len(episode.support) == 4
            assert episode.query not in [picture for picture, _ in episode.support]
            assert episode.truth == episode.query.names['en'] and episode.truth in episode.candidates


def test_rices_puts_the_most_similar_last(open_split):
    task = names(open_split, query_split='validation', support_split='validation')
    for episode in task.episodes(30, 2, 'rices', seed=1):
        assert episode.support[-1][0].concept == episode.query.concept
        assert task.nearest(episode)[0] == episode.support[-1][1] == episode.truth


def test_no_shots_have_baselines_of_the_whole_support(open_split):
    task = names(open_split)
    (episode,) = task.episodes(1, 0, 'random', seed=0)
    assert episode.support == () and set(task.nearest(episode)) <= set(episode.candidates)


@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(answers=('rankd',)), 'rankd'),
        (dict(support=('rices',)), 'no support pool'),
        (dict(ways=500), '500 classes'),
        (dict(ways=0, language='xx'), "'xx'"),
        (dict(ways=0, shots=(0, 5000)), '5000 shots need more pictures'),
        (dict(query_styles=('ntoo',)), 'ntoo'),
        (dict(query_split='tset'), 'tset'),
    ],
)
def test_what_makes_no_sense_is_refused(open_split, fields, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Task('bad', TaskConfig(**fields), open_split)
