"""Episodes over the embedded sample: what a prompt may and may not contain."""

import dataclasses
import functools

import numpy as np
import pytest

from flamingo_jax.evaluation.task import TaskConfig
from flamingo_jax.evaluation.tasks import OTHER_THINGS, make
from flamingo_jax.few_shot.kinds import kind_of
from flamingo_jax.inputs.sources.picture_set import PictureSet

SAMPLE = 'data/picture_dictionary/sample'
KINDS = {'animal': 'animal', 'food': 'food', 'transport': 'vehicle'}


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
    return make('words', TaskConfig(query_styles=('fluent-3d',), **changes), open_split)


def names(open_split, **changes):
    fields = dict(asks='names', shots=(0, 4), query_split='train', support_split='train') | changes
    return make('names', TaskConfig(**fields), open_split)


def test_new_words_are_bound_by_the_prompt_alone(open_split):
    task, words = new_words(open_split, ways=5, shots=(1, 2)), set()
    for episode in task.episodes(50, 2, 'random', 'ranked', seed=0):
        *support, query = episode.parts
        assert len(support) == 10 and len(set(episode.candidates)) == 5
        labels = {part.picture.concept: part.text[1:] for part in support}
        assert len(labels) == len(set(labels.values())) == 5
        assert labels[query.picture.concept] == episode.truth
        assert query.picture.style == 'fluent-3d' and query.text == ''
        assert all(part.picture.style != 'fluent-3d' for part in support)
        assert task.nearest(episode) == (episode.truth, episode.truth)
        words |= set(episode.candidates)
    assert len(words) > 100  # Drawn anew each time.


def test_other_shots_ask_the_same_queries_of_the_same_words(open_split):
    task = new_words(open_split, ways=3, shots=(1, 2))
    for one, two in zip(
        task.episodes(20, 1, 'random', 'ranked', 5), task.episodes(20, 2, 'random', 'ranked', 5), strict=True
    ):
        assert (one.parts[-1], one.truth, one.candidates) == (two.parts[-1], two.truth, two.candidates)


def test_names_never_show_the_query_itself(open_split):
    task = names(open_split, query_split='validation', support_split='validation')
    for support in ('random', 'rices'):
        for episode in task.episodes(30, 4, support, 'ranked', seed=1):
            *shown, query = [part.picture for part in episode.parts]
            assert len(shown) == 4 and query not in shown
            assert episode.truth == query.names['en'] and episode.truth in episode.candidates


def test_rices_puts_the_most_similar_last(open_split):
    task = names(open_split, query_split='validation', support_split='validation')
    for episode in task.episodes(30, 2, 'rices', 'ranked', seed=1):
        *_, last, query = episode.parts
        assert last.picture.concept == query.picture.concept
        assert ' ' + task.nearest(episode)[0] == last.text == ' ' + episode.truth


def test_no_shots_have_baselines_of_the_whole_support(open_split):
    task = names(open_split)
    (episode,) = task.episodes(1, 0, 'random', 'ranked', seed=0)
    assert len(episode.parts) == 1 and set(task.nearest(episode)) <= set(episode.candidates)


def test_names_that_training_did_not_show(open_split):
    for heldout in (True, False):
        task = names(open_split, query_split='train', language='ka', heldout=heldout)
        for episode in task.episodes(20, 2, 'random', 'language', seed=1):
            *support, query = [part.picture for part in episode.parts]
            assert ('ka' in query.heldout_languages) == heldout
            assert not any('ka' in picture.heldout_languages for picture in support)
            assert episode.truth == query.names['ka'] and set(query.names.values()) < set(episode.candidates)
            # Some name of each thing is in the language, whichever thing it is.
            assert len(episode.also_right) == 1 + OTHER_THINGS and set(episode.also_right) < set(episode.candidates)
            assert all(map(episode.is_right, episode.also_right)) and not episode.is_right(query.names['en'])


@pytest.mark.parametrize('asks', ['kinds', 'yes_or_no', 'which'])
def test_questions_about_kinds_are_answered_by_the_pictures(open_split, asks):
    task, truths = make(asks, TaskConfig(asks=asks, kinds=KINDS, shots=(2,)), open_split), []
    for episode in task.episodes(60, 2, 'random', 'ranked', seed=2):
        assert episode.truth in episode.candidates
        truths.append(episode.truth)
        *earlier, last = episode.parts
        shown = [kind_of(part.picture, KINDS) for part in episode.parts if part.picture]
        if asks == 'kinds':
            assert [part.text for part in earlier] == [f' {kind}' for kind in shown[:2]] and episode.truth == shown[2]
        elif asks == 'yes_or_no':
            assert episode.truth == ('yes' if shown[-1] in last.text else 'no')
        else:
            assert len(shown) == 6 and last.picture is None
            two = dict(zip(('first', 'second'), shown[-2:], strict=True))
            if 'which' in last.text:
                assert two[episode.truth] in last.text
            else:
                assert two['first' if 'first' in last.text else 'second'] == episode.truth
    assert len(set(truths)) >= 2


def test_a_picture_with_questions_of_its_own(open_split):
    def with_questions(split):
        pictures, rows = open_split(split)
        pictures = pictures.only(())
        asked = (('how many?', 'one'), ('what is it?', 'a thing'))
        pictures.pictures = [dataclasses.replace(picture, questions=asked) for picture in pictures.pictures]
        return pictures, rows

    task = make('count', TaskConfig(asks='questions', questions='how many', shots=(1,)), with_questions)
    (episode,) = task.episodes(1, 1, 'random', 'ranked', seed=0)
    assert [part.text for part in episode.parts] == [
        ' Question: how many? Answer: one',
        ' Question: how many? Answer:',
    ]
    assert episode.truth == task.majority == 'one'


@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(answers=('rankd',)), 'rankd'),
        (dict(support=('rices',)), 'rices'),
        (dict(ways=500), '500 classes'),
        (dict(asks='names', language='xx'), "'xx'"),
        (dict(asks='names', shots=(0, 5000)), '5000 shots need more pictures'),
        (
            dict(asks='names', query_split='validation', support_split='train'),
            'asked for 0 show what the support shows',
        ),
        (dict(asks='nmaes'), 'nmaes'),
        (dict(asks='kinds'), 'two kinds'),
        (dict(asks='questions'), 'no picture has a question'),
        (dict(asks='which', kinds=KINDS, questions='who'), "not 'who'"),
        (dict(asks='direction'), 'only clips'),
        (dict(query_styles=('ntoo',)), 'ntoo'),
        (dict(query_split='tset'), 'tset'),
    ],
)
def test_what_makes_no_sense_is_refused(open_split, fields, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make('bad', TaskConfig(**fields), open_split)


def test_the_language_is_asked_among_the_names_of_five_things(open_split):
    def with_four_things(split):
        pictures, rows = open_split(split)
        few = pictures.only(())
        kept = sorted(pictures.by_concept)[:OTHER_THINGS]
        few.pictures = [picture for picture in pictures.pictures if picture.concept in kept]
        return few, rows[[picture.index for picture in few.pictures]]

    with pytest.raises(ValueError, match='names of 5 things, and the support shows 4'):
        names(with_four_things, shots=(0,), answers=('language',), query_split='test', support_split='test')
