"""Episodes of games over the embedded sample: what a prompt may and may not contain."""

import collections
import dataclasses
import functools
import hashlib
import importlib
import json
import pathlib

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from experiments.evaluate import picture_dictionary
from flamingo_jax.evaluation import pools as pools_module
from flamingo_jax.evaluation.controls import asked_as
from flamingo_jax.evaluation.metrics import exact
from flamingo_jax.evaluation.report import as_json
from flamingo_jax.evaluation.task import make, task
from flamingo_jax.inputs.images import QUARTERS, ImageFormat
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.tasks.direction import Direction
from flamingo_jax.tasks.episode import Episode, Part, Pool
from flamingo_jax.tasks.facts import Facts
from flamingo_jax.tasks.kinds import Kinds, kind_of, with_article
from flamingo_jax.tasks.names import OTHER_THINGS, Names
from flamingo_jax.tasks.questions import Questions
from flamingo_jax.tasks.which import Which
from flamingo_jax.tasks.words import Words
from flamingo_jax.tasks.yes_or_no import YesOrNo

SAMPLE = 'data/picture_dictionary/sample'
KINDS = {'animal': 'animal', 'food': 'food', 'transport': 'vehicle'}


class Pools(pools_module.Pools):
    """Images of a split, with random features in which all images of a concept are near each other."""

    data = SAMPLE

    def __init__(self, change=None):
        self._change = change
        self.open = functools.cache(self._open)

    def _open(self, split, data=''):
        images = ImageSet(SAMPLE, split, ImageFormat(8))
        rng = np.random.default_rng(0)
        of_concept = {concept: rng.normal(size=32) for concept in sorted(images.by_concept)}
        rows = np.stack([of_concept[p.concept] + 0.1 * rng.normal(size=32) for p in images.images])
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        by_index = {image.index: row for image, row in zip(images.images, rows, strict=True)}
        if self._change:
            self._change(images)
        return Pool(images, lambda: by_index, split)


def with_questions(images):
    """Two questions an image."""
    images.images = [
        dataclasses.replace(p, questions=((f'what is in {p.style}?', p.names['en']), ('how many?', 'one')))
        for p in images.images
    ]


def as_clips(images):
    """Clips of two frames, for all that a task knows."""
    images.blank = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.fixture(scope='module')
def pools():
    return Pools()


def new_words(pools, **changes):
    return make('words', task(Words, query_styles=('fluent-3d',), **changes).to_dict(), pools)


def names(pools, **changes):
    fields = dict(shots=(0, 4), support=('random', 'rices'), query_split='train', support_split='train') | changes
    return make('names', task(Names, **fields).to_dict(), pools)


def nearest(task, episode):
    found = task.baselines(episode)
    return found['nearest neighbour'], found['nearest centroid']


def test_new_words_are_bound_by_the_prompt_alone(pools):
    words_task, words = new_words(pools, ways=5, shots=(1, 2)), set()
    for episode in words_task.episodes(50, 2, 'random', 'ranked', seed=0):
        support, (query,) = episode.support, episode.query
        assert len(support) == 10 and len(set(episode.candidates)) == 5
        labels = {part.image.concept: part.text[1:] for part in support}
        assert len(labels) == len(set(labels.values())) == 5
        assert labels[query.image.concept] == episode.truth
        assert query.image.style == 'fluent-3d' and query.text == ''
        assert all(part.image.style != 'fluent-3d' for part in support)
        assert nearest(words_task, episode) == (episode.truth, episode.truth)
        words |= set(episode.candidates)
    assert len(words) > 100  # Drawn anew each time.


def test_questions_are_in_the_cluster_of_each_image(pools):
    """An image set may have few images to ask about: an interval must not count each question as an image."""
    for one in (names(pools), make('which', task(Which, kinds=KINDS).to_dict(), pools)):
        episodes = [one.episode(i, 0, 'random', 'ranked', seed=0) for i in range(200)]
        pairs = {(e.clusters, tuple(part.key for part in e.query if part.key)) for e in episodes}
        assert len(pairs) == len({clusters for clusters, _ in pairs}) == len({keys for _, keys in pairs}) > 50
        assert {len(clusters) for clusters, _ in pairs} == {1 if one.name == 'names' else 2}


def test_other_shots_ask_the_same_queries_of_the_same_words(pools):
    asked = new_words(pools, ways=3, shots=(1, 2))
    one, two = (list(asked.episodes(20, shots, 'random', 'ranked', 5)) for shots in (1, 2))
    assert [(e.query, e.truth, e.candidates) for e in one] == [(e.query, e.truth, e.candidates) for e in two]


def test_rices_puts_the_most_similar_last(pools):
    named = names(pools, query_split='validation', support_split='validation')
    for episode in named.episodes(30, 2, 'rices', 'ranked', seed=1):
        *_, last, query = episode.parts
        assert last.image.concept == query.image.concept
        assert ' ' + nearest(named, episode)[0] == last.text == ' ' + episode.truth


def test_no_shots_have_baselines_of_the_whole_support(pools):
    named = names(pools)
    (episode,) = named.episodes(1, 0, 'random', 'ranked', seed=0)
    assert len(episode.parts) == 1 and set(nearest(named, episode)) <= set(episode.candidates)


def test_names_that_training_did_not_show(pools):
    for heldout in (True, False):
        named = names(pools, language='ka', heldout=heldout, answers=('language',))
        for episode in named.episodes(20, 2, 'random', 'language', seed=1):
            *support, query = [part.image for part in episode.parts]
            assert ('ka' in query.heldout_languages) == heldout
            assert not any('ka' in image.heldout_languages for image in support)
            assert episode.truth == query.names['ka'] and set(query.names.values()) < set(episode.candidates)
            # Some name of each thing is in the language, whichever thing it is.
            right = episode.references
            assert len(right) == 1 + OTHER_THINGS and set(right) < set(episode.candidates)
            for answer in (*right, query.names['en']):
                value, _ = exact.score({episode.id: answer}, {episode.id: right})
                assert value == (answer in right)


FACTS = 'data/picture_facts/facts.json'


def test_facts_are_asked_about_other_things_than_the_examples_show(pools):
    splits = dict(query_split='train', support_split='train')
    about, questions = (
        make('facts', task(Facts, facts=FACTS, shots=(4,), **splits).to_dict(), pools),
        collections.Counter(),
    )
    with open(FACTS) as file:
        known = json.load(file)
    for episode in about.episodes(200, 4, 'random', 'ranked', seed=0):
        question = episode.query[-1].text.removeprefix(' Question: ').removesuffix(' Answer:')
        questions[question] += 1
        assert set(episode.candidates) <= set(known[question])
        things = [part.image.concept for part in episode.parts]
        assert len(set(things)) == 5
        for part in episode.support:
            asked, answer = part.text.removeprefix(' Question: ').split(' Answer: ')
            assert asked == question and part.image.names['en'] in known[question][answer]
        assert episode.query[-1].image.names['en'] in known[question][episode.truth]
        (query,) = episode.query
        assert query.of.words(query.image) in [f'{a} {query.image.names["en"]}.' for a in ('A', 'An')]
    assert len(questions) > 5 and min(questions.values()) > 200 / len(questions) / 3


@pytest.mark.parametrize(
    'changes, says',
    [
        (dict(question='why?'), "no question 'why\\?', but only"),
        (dict(question='how many legs does it have?', shots=(400,)), '400 shots need 400 things for the question'),
    ],
)
def test_facts_that_cannot_be_asked_are_refused(pools, changes, says):
    with pytest.raises(ValueError, match=says):
        make('facts', task(Facts, facts=FACTS, **changes).to_dict(), pools)
    with pytest.raises(FileNotFoundError, match="no facts at 'nowhere.json'"):
        make('facts', task(Facts, facts='nowhere.json').to_dict(), pools)


@pytest.mark.parametrize('asks', [Kinds, YesOrNo, Which])
def test_questions_about_kinds_are_answered_by_the_images(pools, asks):
    about, truths = make('kinds', task(asks, kinds=KINDS, shots=(2,)).to_dict(), pools), []
    for episode in about.episodes(60, 2, 'random', 'ranked', seed=2):
        assert episode.truth in episode.candidates
        truths.append(episode.truth)
        *earlier, last = episode.parts
        shown = [kind_of(part.image, KINDS) for part in episode.parts if part.image]
        if asks is Kinds:
            assert [part.text for part in earlier] == [f' {kind}' for kind in shown[:2]] and episode.truth == shown[2]
        elif asks is YesOrNo:
            assert episode.truth == ('yes' if shown[-1] in last.text else 'no')
        else:
            assert len(shown) == 6 and last.image is None
            two = dict(zip(('first', 'second'), shown[-2:], strict=True))
            if 'which' in last.text:
                assert two[episode.truth] in last.text
            else:
                assert two['first' if 'first' in last.text else 'second'] == episode.truth
    assert len(set(truths)) >= 2


@pytest.mark.parametrize('asks', [YesOrNo, Which])
def test_questions_that_name_things_are_answered_by_the_images(pools, asks):
    about, truths = make('things', task(asks, shots=(2,)).to_dict(), pools), []
    for episode in about.episodes(60, 2, 'random', 'ranked', seed=2):
        assert episode.truth in episode.candidates
        truths.append(episode.truth)
        names = [part.image.names['en'] for part in episode.query if part.image]
        text = episode.query[-1].text
        if asks is YesOrNo:
            assert episode.truth == ('yes' if f'is it {with_article(names[0])}?' in text else 'no')
        else:
            two = dict(zip(('first', 'second'), names, strict=True))
            if 'which is' in text:
                assert f'which is {with_article(two[episode.truth])}?' in text
            else:
                assert two['first' if 'first' in text else 'second'] == episode.truth
    assert len(set(truths)) >= 2


def test_food_and_plant_do_not_exclude_one_another(pools):
    """A tomato is both: no question has two right answers, and no candidate is another right answer."""
    kinds = KINDS | {'plant': 'plant'}
    for asks in (Kinds, YesOrNo, Which):
        about, met = make('kinds', task(asks, kinds=kinds, shots=(2,), query_split='train').to_dict(), pools), set()
        for episode in about.episodes(150, 2, 'random', 'ranked', seed=2):
            shown = [kind_of(part.image, kinds) for part in episode.query if part.image]
            met |= set(shown)
            both = {'food', 'plant'}
            assert not both <= set(shown)
            if asks is Kinds:
                assert (both <= set(episode.candidates)) == (shown[0] not in both) and shown[0] in episode.candidates
            if asks is YesOrNo and shown[0] in both:
                (other,) = both - set(shown)
                assert other not in episode.query[0].text
        assert met == {'animal', 'food', 'plant', 'vehicle'}


def test_an_image_with_questions_of_its_own():
    asked = task(Questions, questions='how many', shots=(1,)).to_dict()
    one = make('count', asked, Pools(with_questions))
    (episode,) = one.episodes(1, 1, 'random', 'ranked', seed=0)
    assert [part.text for part in episode.parts] == [
        ' Question: how many? Answer: one',
        ' Question: how many? Answer:',
    ]
    assert episode.truth == one.baselines(episode)['majority answer'] == 'one'


def test_a_tiled_image_is_asked_about_tile_by_tile():
    """Each tile reads as a frame of its own, and no example shows the query's image."""

    def tiled(images):
        with_questions(images)
        images.frames = lambda image: np.arange(5)[:, None, None] + np.full((5, 1, 1), 10 * image.index)
        images.blank = images.frames(images.images[0])

    one = make('where', task(Questions, tiled=True, shots=(1,)).to_dict(), Pools(tiled))
    (episode,) = one.episodes(1, 1, 'random', 'ranked', seed=0)
    places = [f' {place}' for place in QUARTERS]
    for parts, says in ((episode.support, ' Question: {} Answer: {}'), (episode.query, ' Question: {} Answer:')):
        *quarters, whole = parts
        assert [part.text for part in quarters] == places
        image = whole.image
        assert whole.text in [says.format(*texts) for texts in image.questions]
        read = np.concatenate([part.of.frames(part.image) for part in (*quarters, whole)])
        np.testing.assert_array_equal(read.ravel(), 10 * image.index + np.array([1, 2, 3, 4, 0]))
        assert len({str(part.of.identity(part.image)) for part in parts}) == 5
    assert episode.support[0].key != episode.query[0].key


ONE_SPLIT = [
    (Words, dict(ways=3, shots=(1, 2)), None),
    (Names, dict(support=('random', 'rices')), None),
    (Kinds, dict(kinds=KINDS), None),
    (YesOrNo, dict(kinds=KINDS), None),
    (Which, dict(kinds=KINDS), None),
    (YesOrNo, {}, None),
    (Which, {}, None),
    (Questions, dict(questions='what'), with_questions),
    (Direction, {}, as_clips),
]


@pytest.mark.parametrize('asks, fields, change', ONE_SPLIT)
def test_examples_never_show_the_image_that_is_asked_about(asks, fields, change):
    """Though queries and examples are of one split and one style, and few; and there are as many as the label says."""

    def few(images):
        if change:
            change(images)
        if asks is Words:  # Concepts need several images of the one style.
            images.images = [dataclasses.replace(p, concept=p.subcategory, style='noto') for p in images.images]
        else:
            kept = collections.Counter()
            chosen = [p for p in images.images if p.style == 'noto' and kind_of(p, KINDS)]
            images.images = []
            for image in chosen:  # Four of each kind.
                if kept[kind_of(image, KINDS)] < 4:
                    kept[kind_of(image, KINDS)] += 1
                    images.images.append(image)

    common = dict(shots=(0, 3), query_styles=('noto',), support_styles=('noto',), query_split='train')
    one = make('one', task(asks, **common | dict(support_split='train') | fields).to_dict(), Pools(few))
    for shots in one.shots:
        for support in one.support:
            for episode in one.episodes(60, shots, support, 'ranked', seed=0):
                asked = {part.image.index for part in episode.query if part.image}
                shown = [part.image.index for part in episode.support if part.image]
                assert asked and not asked & set(shown)
                classes = one._game.ways if asks is Words else 2 if asks is Which else 1
                assert len(shown) == shots * classes
    with pytest.raises(ValueError, match='Task one: .*besides the query|Task one: .*leaves none for the query'):
        make(
            'one',
            task(asks, **common | dict(support_split='train') | fields | dict(shots=(100,))).to_dict(),
            Pools(few),
        )


def test_two_things_need_others_to_be_asked_about():
    """Where the query shows the only two things that a third may be confused with, no example could be drawn."""

    def few(images):
        names = ('red ball', 'blue cup', 'green hat', 'green tree')
        chosen = [p for p in images.images if p.style == 'noto'][:4]
        renamed = zip(chosen, names, strict=True)
        images.images = [dataclasses.replace(p, concept=name, names=dict(en=name)) for p, name in renamed]

    common = dict(query_styles=('noto',), support_styles=('noto',), query_split='train', support_split='train')
    with pytest.raises(ValueError, match='only 2 others with no word in common'):
        make('two', task(Which, shots=(1,), **common).to_dict(), Pools(few))
    assert list(
        make('two', task(Which, shots=(0,), **common).to_dict(), Pools(few)).episodes(9, 0, 'random', 'ranked', 0)
    )


def test_new_words_may_show_the_thing_itself_in_another_style(pools):
    asked = new_words(pools, ways=3, shots=(1,), support_styles=('noto', 'noto-v1'))
    assert all(
        episode.query[0].image.concept in {part.image.concept for part in episode.support}
        for episode in asked.episodes(10, 1, 'random', 'ranked', 0)
    )


def test_an_episode_that_shows_its_own_answer_is_never_asked(pools):
    """Where a game forgets it, the task does not."""
    named = names(pools, query_split='validation', support_split='validation')
    named._game.places_without = lambda indices, query: np.flatnonzero(indices == query.index)
    with pytest.raises(RuntimeError, match='the examples of episode 0 show the image that it asks about'):
        list(named.episodes(1, 1, 'random', 'ranked', 0))


# What these tasks ask: parts, truth, candidates, also right, nearest, majority.
HELD_OUT = dict(query_styles=('fluent-3d',), support_styles=('noto', 'noto-v1', 'fluent-flat'))
ASKED = dict(
    words=('25f323100b2681f4', Words, dict(ways=5, shots=(1, 2)), [(1, 'random', 'ranked'), (2, 'random', 'ranked')]),
    names=(
        'f0eddf3240ad65b3',
        Names,
        dict(shots=(0, 4), support=('random', 'rices'), query_split='train', support_split='train'),
        [(0, 'random', 'ranked'), (4, 'random', 'open-ended'), (4, 'rices', 'ranked')],
    ),
    kinds=(
        'b40ddd73e5dbb2b0',
        Kinds,
        dict(kinds=KINDS, shots=(0, 4)),
        [(0, 'random', 'ranked'), (4, 'random', 'ranked')],
    ),
    yes_or_no=(
        '60b3a6bb7d0d5bf5',
        YesOrNo,
        dict(kinds=KINDS, shots=(0, 4)),
        [(0, 'random', 'ranked'), (4, 'random', 'ranked')],
    ),
    which=(
        'e3d3dbaf745ee84c',
        Which,
        dict(kinds=KINDS, questions='which', shots=(0, 3)),
        [(0, 'random', 'ranked'), (3, 'random', 'ranked')],
    ),
    yes_or_no_of_names=(
        'a488bd248302367d',
        YesOrNo,
        dict(form='does this show {}?', shots=(0, 4)),
        [(0, 'random', 'ranked'), (4, 'random', 'ranked')],
    ),
    which_of_names=(
        '96d172c4421c72f5',
        Which,
        dict(shots=(0, 3)),
        [(0, 'random', 'ranked'), (3, 'random', 'ranked')],
    ),
)


@pytest.mark.parametrize('name', ASKED)
def test_a_seed_asks_the_same_for_ever(pools, name):
    """Published figures can be had again."""
    expected, asks, fields, settings = ASKED[name]
    one, digest = make(name, task(asks, **fields, **HELD_OUT).to_dict(), pools), hashlib.sha256()
    for shots, support, answers in settings:
        for e in one.episodes(30, shots, support, answers, 3):
            parts = [(p.image and (p.image.index, p.image.backward), p.text) for p in e.parts]
            found = one._game.nearest(e), one._game.majority
            digest.update(repr((parts, e.truth, e.candidates, (), *found)).encode())
    assert digest.hexdigest()[:16] == expected


def test_shuffled_images_are_those_of_other_prompts(pools):
    named = names(pools, query_styles=('fluent-3d',), support_styles=('noto',))
    episodes = list(named.episodes(30, 4, 'random', 'ranked', seed=0))
    other = asked_as('shuffled images', episodes, 0)
    for side in ('support', 'query'):
        before, after = ([part for e in some for part in getattr(e, side)] for some in (episodes, other))
        assert [part.text for part in before] == [part.text for part in after]
        assert sorted(p.image.index for p in before) == sorted(p.image.index for p in after)
        assert sum(a.image == b.image for a, b in zip(before, after, strict=True)) <= len(before) // 10
    assert [e.truth for e in other] == [e.truth for e in episodes]
    assert asked_as('shuffled images', episodes, 0) == other != asked_as('shuffled images', episodes, 1)


def test_shuffled_images_are_right_by_chance_where_there_are_few():
    """Of four images, each is right for a question in a quarter of its places, whatever the others are."""
    pool = Pools().open('train')
    parts = [Part(image, pool, '') for image in pool.images.images[:4]]
    rng = np.random.default_rng(0)
    episodes = [Episode((), (parts[i],), 'dog') for i in rng.integers(4, size=4000)]
    same = [
        a.query[0].key == b.query[0].key
        for a, b in zip(episodes, asked_as('shuffled images', episodes, 0), strict=True)
    ]
    assert np.mean(same) == pytest.approx(0.25, abs=0.03)


def test_examples_without_images_where_there_are_none_with(pools):
    """The paper's prompts at zero shots (appendix A.2): two examples of text alone, where the answer is written."""
    plain, named = names(pools), names(pools, text_examples=2)

    def asked(one, shots, answers):
        return [[(p.key, p.text) for p in e.parts] for e in one.episodes(9, shots, 'random', answers, 0)]

    for bare, told in zip(asked(plain, 0, 'open-ended'), asked(named, 0, 'open-ended'), strict=True):
        assert told[-1:] == bare
        assert len(told) == 3 and all(key is None and len(text) > 1 for key, text in told[:-1])
    assert asked(named, 0, 'ranked') == asked(plain, 0, 'ranked')
    assert asked(named, 4, 'open-ended') == asked(plain, 4, 'open-ended')


@pytest.mark.parametrize(
    'asks, fields, message',
    [
        (Words, dict(answers=('rankd',)), 'rankd'),
        (Words, dict(support=('rices',)), 'rices'),
        (Words, dict(answers=()), r'answers are \(\). Give one or more of'),
        (Words, dict(support=()), r'support are \(\). Give one or more of'),
        (Words, dict(shots=()), 'shots are'),
        (Words, dict(orders=0), 'orders is 0. It must be 1 or more'),
        (Names, dict(text_examples=-2), 'text_examples is -2. It must be 0 or more'),
        (Names, dict(max_new_tokens=-1), 'max_new_tokens is -1. It must be 0 or more'),
        (Words, dict(ways=500), '500 classes'),
        (Names, dict(language='xx'), "'xx'"),
        (Names, dict(shots=(0, 5000)), '5000 shots need 5000 images that have a name'),
        (
            Names,
            dict(query_split='validation', support_split='train'),
            '0 images to ask about that show what the support shows',
        ),
        (Kinds, {}, 'two kinds'),
        (Questions, {}, 'No image of the data set has a question'),
        (Questions, dict(tiled=True), 'Tiles are shown of images with 5 or 10 frames, .* and these have 1'),
        (Which, dict(kinds=KINDS, questions='who'), "`questions` is 'who', but no question begins so"),
        (Which, dict(questions='who'), "`questions` is 'who', but no question begins so"),
        (YesOrNo, dict(query_split='validation', support_split='train'), 'no image to ask about shows a thing'),
        (Direction, {}, 'only clips'),
        (Names, dict(query_styles=('ntoo',)), 'ntoo'),
        (Names, dict(query_split='tset'), 'tset'),
        (Which, dict(kinds=KINDS, orders=6), 'orders is 6, but an example of this game has several images'),
    ],
)
def test_what_makes_no_sense_is_refused(pools, asks, fields, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make('bad', task(asks, **fields).to_dict(), pools)


@pytest.mark.parametrize('shots', ['a', (0.5,), (1, -1)])
def test_shots_are_whole_numbers(pools, shots):
    made = names(pools, shots=(1,))
    made.shots = shots  # As a config may have them, whose types nothing checks outside of the tests.
    with pytest.raises(ValueError, match='shots are .*. They must be one or more numbers, each 0 or more'):
        made.open('words', pools)


def test_a_field_that_a_task_does_not_have_is_refused():
    with pytest.raises(TypeError, match='blend'):
        task(Words, blend=0.5)


def test_the_language_is_asked_among_the_names_of_five_things():
    def four_things(images):
        kept = sorted(images.by_concept)[:OTHER_THINGS]
        images.images = [image for image in images.images if image.concept in kept]

    with pytest.raises(ValueError, match='need 5 things with names, but the support shows only 4'):
        names(Pools(four_things), shots=(0,), answers=('language',), query_split='test', support_split='test')


def test_a_config_names_a_task_by_its_class_and_can_be_written_and_overridden(monkeypatch):
    c = picture_dictionary.get_config('tasks')
    written = json.loads(as_json(c.to_dict()))['tasks']['yes_or_no']
    assert written['asks'] == 'flamingo_jax.tasks.yes_or_no.YesOrNo' and written['shots'] == [1, 4, 8]
    assert 'YesOrNo' in c.to_yaml()
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', lock_config=True, flag_values=values)
    line = ['', '--config=experiments/evaluate/quickstart.py']
    line += ['--config.tasks.names.shots=1,2', '--config.tasks.words.ways=3']
    monkeypatch.setattr('sys.argv', line)
    values(line)
    assert values.config.tasks.names.shots == (1, 2) and values.config.tasks.names.asks is Names
    # A title may have several words; the name that a flag has may not.
    assert values.config.tasks.words.ways == 3 and values.config.tasks.words.title == '5-way new words'


@pytest.mark.parametrize('file', sorted(pathlib.Path('experiments/evaluate').glob('*.py')), ids=lambda file: file.stem)
def test_every_task_of_every_config_can_be_overridden(file):
    tasks = importlib.import_module(f'experiments.evaluate.{file.stem}').get_config().tasks
    assert len(tasks) and all(name.isidentifier() for name in tasks)
    titles = [fields.title or name for name, fields in tasks.items()]
    assert len(set(titles)) == len(titles)
