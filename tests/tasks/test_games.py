"""Training sequences of every game, over the embedded sample: what they show and what they ask to be learnt."""

import collections
import dataclasses
import hashlib
import json
import pathlib
import re

import numpy as np
import pytest

from data.picture_texts.dialogues import told, whole_sentences
from flamingo_jax.inputs.augment import mirror
from flamingo_jax.inputs.images import QUARTERS, ImageFormat
from flamingo_jax.inputs.layout import Layout
from flamingo_jax.inputs.prompts import ASKS, chat, encode_prompt
from flamingo_jax.inputs.rows import RowFormat
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.inputs.sources.features import fingerprint
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.tasks.direction import Direction
from flamingo_jax.tasks.game import Sequences
from flamingo_jax.tasks.kinds import Kinds, by_kind
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.questions import Questions
from flamingo_jax.tasks.source import Drawing, FewShot, game
from flamingo_jax.tasks.texts import Texts
from flamingo_jax.tasks.which import Which
from flamingo_jax.tasks.words import Words
from flamingo_jax.tasks.yes_or_no import YesOrNo
from flamingo_jax.training.objectives.told import Told

SAMPLE = str(pathlib.Path(__file__).parents[2] / 'data/picture_dictionary/sample')


@pytest.fixture(scope='module')
def images():
    return ImageSet(SAMPLE, 'train', ImageFormat(8))


@pytest.fixture
def texts(images, tmp_path):
    """A file with a text and a dialogue of two turns about each of eight things."""
    names = sorted({found[0].names['en'] for found in images.by_concept.values()})[:8]
    lines = [dict(name=name, says=f'A {name}', text=f' is a {name}.') for name in names]
    turns = [['Why?', 'So.'], ['And?', 'No.']]
    lines += [dict(name=name, says=f'Here is a {name}.', turns=turns) for name in names]
    (tmp_path / 'texts.jsonl').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    return str(tmp_path / 'texts.jsonl')


@pytest.fixture(scope='module')
def languages(images):
    """All languages, so that held-out ones come up."""
    return tuple(sorted(images.images[0].names))


@pytest.fixture
def documents(images, monkeypatch):
    """A function that gives (chunks, images drawn of a concept, in order) of some documents."""
    drawn, of_concept = [], Sequences.of_concept

    def watched(self, *args):
        drawn.append(of_concept(self, *args))
        return drawn[-1]

    monkeypatch.setattr(Sequences, 'of_concept', watched)

    def documents(*games, shots=10, number=150):
        few_shot = Drawing(images, shots, {str(i): game for i, game in enumerate(games)})
        for seed in range(number):
            drawn.clear()
            yield few_shot.document(0, np.random.default_rng(seed)), list(drawn)

    return documents


def test_words_give_each_concept_one_word_in_a_document(documents):
    labels_of = {}
    for chunks, drawn in documents(game(Words, text_keys=0.0, blend=0.0, real_words=0.0)):
        assert len(chunks) == len(drawn) == 10
        words, seen = {}, set()
        for chunk, image in zip(chunks, drawn, strict=True):
            prompt, label = chunk.texts
            assert prompt == '' and label[0] == ' '
            assert words.setdefault(image.concept, label) == label
            # Only a word that came before can be known.
            assert chunk.weights == (0.0, 1.0 if image.concept in seen else 0.0)
            seen.add(image.concept)
            labels_of.setdefault(image.concept, set()).add(label)
        assert len(set(words.values())) == len(words) <= 5
    assert max(map(len, labels_of.values())) > 1  # The next document calls it otherwise.


@pytest.mark.parametrize('one', [game(Words, text_keys=0.0, blend=0.0), game(Names)])
def test_no_style_twice_running(documents, one):
    for _, drawn in documents(one):
        assert all(a.style != b.style for a, b in zip(drawn, drawn[1:], strict=False))


def test_text_keys_are_names_with_the_same_words(documents):
    number = 0
    for chunks, drawn in documents(game(Words, text_keys=1.0, blend=0.0, real_words=0.0)):
        with_image = iter(drawn)
        words = {}
        for chunk in chunks:
            if chunk.image is None:
                name, prompt, label = chunk.texts
                number += 1
                assert chunk.weights[:2] == (0.0, 0.0)
            else:
                name, (prompt, label) = ' ' + next(with_image).names['en'], chunk.texts
            assert prompt == '' and words.setdefault(name, label) == label
    assert 500 < number < 1000  # About half of 1,500.


def test_held_out_languages_are_never_named(documents, images):
    """Neither as an answer, nor as a key, nor as a label borrowed from another concept."""
    forbidden = {(language, image.names[language]) for image in images.images for language in image.heldout_languages}
    allowed = {
        (language, name)
        for image in images.images
        for language, name in image.names.items()
        if language not in image.heldout_languages
    }
    checked = 0
    for language in sorted({language for language, _ in forbidden})[:8]:
        only = {name for spoken, name in forbidden - allowed if spoken == language}
        checked += len(only)
        games = [
            game(Words, languages=(language,), text_keys=1.0, real_words=1.0),
            game(Names, languages=(language,)),
        ]
        for chunks, _ in documents(*games, number=60):
            for chunk in chunks:
                assert not only & {text.removeprefix(' ') for text in chunk.texts}
    assert checked > 20


def test_names_are_true(documents, languages):
    skipped = 0
    for chunks, drawn in documents(game(Names, languages=languages), number=60):
        assert len(drawn) == 10 and len({image.concept for image in drawn}) == 10
        # The language is not said: it is one that fits every chunk.
        fitting = [
            language
            for language in languages
            if [' ' + p.names[language] for p in drawn if language not in p.heldout_languages]
            == [chunk.texts[1] for chunk in chunks]
        ]
        assert fitting and all(chunk.weights == (0.0, 1.0) for chunk in chunks)
        skipped += 10 - len(chunks)
    assert skipped > 0


def test_names_are_of_things_that_have_one_in_the_language(images):
    named = set(sorted(images.by_concept)[:12])
    whole = images.only(())
    whole.images = [
        dataclasses.replace(
            p, names=p.names if p.concept in named else {'en': p.names['en']}, heldout_languages=frozenset()
        )
        for p in whole.images
    ]
    few = whole.only(())
    few_shot = Drawing(few, 10, dict(name=game(Names, languages=('fr',))))
    true = {' ' + p.names['fr'] for p in few.images if p.concept in named}
    for seed in range(20):
        texts = [chunk.texts[1] for chunk in few_shot.document(0, np.random.default_rng(seed))]
        assert len(texts) == 10 and set(texts) <= true
    with pytest.raises(ValueError, match="13 images need 13 concepts, .* has 12 .* 'fr'.*`shots`.*`repeats`"):
        Drawing(few, 13, dict(name=game(Names, languages=('en', 'fr'))))


@pytest.mark.parametrize('things', [2, 3])
def test_few_things_are_enough_where_sequences_may_repeat_them(images, things):
    """As one's own images of three things, with four images a sequence."""
    whole = images.only(())
    named = sorted({p.concept for p in whole.images if 'en' in p.names})[:things]
    whole.images = [p for p in whole.images if p.concept in named]
    few = whole.only(())
    drawn = Drawing(few, 4, dict(name=game(Names, repeats=0.5)))
    for seed in range(20):
        texts = [chunk.texts[1] for chunk in drawn.document(0, np.random.default_rng(seed))]
        assert len(texts) == 4 and len(set(texts)) > 1 or seed
    whole.images = [p for p in whole.images if p.concept == named[0]]
    with pytest.raises(ValueError, match='4 images need 2 concepts, .* has 1 concepts .* Give more things'):
        Drawing(whole.only(()), 4, dict(name=game(Names, repeats=0.5)))


def test_a_blend_is_a_mixture_of_two_images(documents, images):
    blends = 0
    for chunks, shown in documents(game(Words, blend=1.0, text_keys=0.0, real_words=0.0), number=10):
        drawn = iter(shown)
        blends += len(shown) - len(chunks)
        partners = collections.defaultdict(set)  # Of each class.
        for chunk in chunks:
            image, frames = next(drawn), chunk.image()
            assert frames.dtype == np.uint8 and frames.shape == (1, 8, 8, 3)
            own = images.frames(image)
            if not any((frames == way).all() for way in (own, mirror(own))):
                partners[image.concept].add(next(drawn).concept)
        assert all(len(others) == 1 for others in partners.values()) and next(drawn, None) is None
        assert len(partners) == len({chunk.texts[-1] for chunk in chunks})
    assert blends == 100


def test_the_generator_decides_everything(images, languages):
    def first(seed):
        games = dict(bind=game(Words, languages=languages), name=game(Names, languages=languages))
        chunks = Drawing(images, 10, games).document(0, np.random.default_rng(seed))
        return [(chunk.texts, chunk.weights) for chunk in chunks], [c.image() for c in chunks if c.image]

    one, again, other = first(3), first(3), first(4)
    assert one[0] == again[0] != other[0]
    for a, b in zip(one[1], again[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_images_that_left_and_right_tell_apart_are_not_mirrored():
    def shown(flip):
        source = FewShot(path=SAMPLE, shots=4, games=dict(name=game(Names)), flip=flip)
        opened, rng = source.open(ImageFormat(16)), np.random.default_rng(0)
        return [chunk.image() for _ in range(20) for chunk in opened.document(0, rng)]

    both = list(zip(shown(True), shown(False), strict=True))
    assert all(any((a == way).all() for way in (b, mirror(b))) for a, b in both)
    assert 20 < sum((a != b).any() for a, b in both) < 60
    set_of_own = {
        frames.tobytes() for p in [ImageSet(SAMPLE, 'train', ImageFormat(16))] for frames in map(p.frames, p.images)
    }
    assert {b.tobytes() for _, b in both} <= set_of_own


def test_mirrored_pixels_and_features():
    pixels = np.arange(24).reshape(1, 2, 4, 3)
    np.testing.assert_array_equal(mirror(pixels)[0, :, 0], pixels[0, :, 3])
    features = np.arange(9 * 2).reshape(1, 9, 2)  # A square of three by three.
    np.testing.assert_array_equal(mirror(features)[0, [0, 1, 5]], features[0, [2, 1, 3]])
    with pytest.raises(ValueError, match='8 features do not form a square'):
        mirror(np.zeros((1, 8, 2)))


KINDS = {'animal': 'animal', 'food': 'food', 'transport': 'vehicle'}


@pytest.mark.parametrize(
    'one, shots, message',
    [
        (
            game(Words, classes=(2, 500)),
            10,
            '500 classes need at least 1000 concepts; the image set has .* Reduce `classes`',
        ),
        (game(Words, languages=('en', 'xx')), 10, r"no names in \['xx'\]. Its languages are .*'en'"),
        (game(Names), 5000, "5000 images need 5000 concepts, .* concepts with a name in 'en'"),
        (game(Names, share=0.0), 10, 'no game'),
        (game(Names, share=-0.5), 10, 'share of the game .* is -0.5'),
        (game(Words, classes=(5, 2)), 10, '`classes` of the game are \\(5, 2\\)'),
        (game(Kinds), 10, 'two kinds'),
        (game(Kinds, kinds={'food': 'food', 'plant': 'plant'}), 10, 'at least two kinds that exclude each other'),
        (game(Questions), 10, 'No image of the data set has a question'),
        (game(Questions, questions='who'), 10, "a question that begins with 'who'. Change `questions`"),
        (game(Questions, tiled=True), 10, 'Tiles are shown of images with 5 or 10 frames, .* and these have 1'),
        (game(Direction), 10, 'clips'),
    ],
)
def test_sequences_that_the_images_do_not_allow_are_refused(images, one, shots, message):
    with pytest.raises(ValueError, match=message):
        Drawing(images, shots, dict(one=one))


def test_a_field_that_a_game_does_not_have_is_refused():
    with pytest.raises(TypeError, match='ways'):
        game(Words, ways=5)


@pytest.mark.parametrize('shots', [1, 2, 6])
def test_names_may_come_again(documents, shots):
    """As few images as two may be of one concept; one alone cannot come again."""
    repeated = 0
    for _, drawn in documents(game(Names, repeats=1.0), shots=shots, number=30):
        repeated += len({image.concept for image in drawn}) < len(drawn) == shots
    assert repeated > 20 if shots > 1 else repeated == 0


def test_similar_images_are_by_others_and_the_nearest_comes_last(images, tmp_path):
    """As RICES takes them: the most similar by one other artist, or by all others, whatever they show."""
    known = np.random.default_rng(0).standard_normal((len(images.images), 16)).astype(np.float16)
    np.save(tmp_path / 'train.npy', known[:, None, None, None])
    about = dict(data=fingerprint(open_split(SAMPLE, 'train')), trunk='abc', image_size=8, fit='pad')
    (tmp_path / 'train.json').write_text(json.dumps(about))
    read = ImageSet(SAMPLE, 'train', ImageFormat(8, 'pad', 1, 16, 'abc'), features=str(tmp_path))
    similar = Drawing(read, 4, dict(name=game(Names, similar=1.0)))
    rows = known / np.linalg.norm(known.astype(np.float32), axis=1, keepdims=True)
    place, by = {row.tobytes(): i for i, row in enumerate(known)}, np.array([p.style for p in read.images])
    asked, one_artist = set(), 0
    for seed in range(100):
        shown = [place[c.image().tobytes()] for c in similar.document(0, np.random.default_rng(seed))]
        *examples, last = shown
        cosines = rows @ rows[last]
        styles = {by[i] for i in examples}
        among = cosines[np.isin(by, list(styles)) if len(styles) == 1 else by != by[last]]
        assert by[last] not in styles
        np.testing.assert_allclose(cosines[examples], np.sort(among)[-3:], atol=1e-6)
        asked.add(read.images[last].concept)
        one_artist += len(styles) == 1
    assert len(asked) > 50 and 40 < one_artist < 80
    with pytest.raises(ValueError, match='Give `features`'):
        Drawing(images, 4, dict(name=game(Names, similar=0.5)))
    with pytest.raises(ValueError, match='at least two styles'):
        Drawing(read.only((str(by[0]),)), 4, dict(name=game(Names, similar=0.5)))


def test_questions_ask_for_kinds_and_for_one_of_two(documents):
    for one in (Kinds, YesOrNo, Which):
        answers = set()
        for chunks, _ in documents(game(one, kinds=KINDS), shots=6, number=20):
            assert sum(chunk.image is not None for chunk in chunks) == 6
            asked = [chunk for chunk in chunks if chunk.weights[-1]]
            assert len(asked) == (3 if one is Which else 6)
            answers |= {chunk.texts[-1] for chunk in asked}
        expected = {' animal', ' food', ' vehicle'}
        if one is YesOrNo:
            expected = {' yes', ' no'}
        assert answers == (expected | {' first', ' second'} if one is Which else expected)


def test_questions_name_a_thing_that_is_there_or_one_with_other_words(documents):
    """Half of the answers are yes, and about a quarter of the questions confuse two things of one subcategory."""
    answers, alike, forms = collections.Counter(), 0, set()
    subcategories = {}
    for chunks, drawn in documents(game(YesOrNo, forms=('is it {}?', 'can you see {}?')), shots=6, number=100):
        for chunk, image in zip(chunks, drawn, strict=True):
            name = image.names['en']
            subcategories[name] = image.subcategory
            question, answer = chunk.texts
            form, thing = re.fullmatch(r' Question: (is it|can you see) (?:an? )?(.+)\? Answer:', question).groups()
            forms.add(form)
            answers[answer] += 1
            assert chunk.weights == (0.0, 1.0)
            if answer == ' yes':
                assert thing == name
            else:
                assert not set(thing.split()) & set(name.lower().split())
                alike += subcategories.get(thing) == image.subcategory
    assert set(answers) == {' yes', ' no'} and 250 < answers[' yes'] < 350 and forms == {'is it', 'can you see'}
    assert 60 < alike < 240


def test_one_of_two_things_is_asked_for_by_its_name(documents):
    answers = set()
    for chunks, drawn in documents(game(Which), shots=6, number=30):
        for i, asked in enumerate(chunks[2::3]):
            names = [image.names['en'] for image in drawn[2 * i : 2 * i + 2]]
            one, two, (question, answer) = chunks[3 * i].texts, chunks[3 * i + 1].texts, asked.texts
            assert (one, two) == ((' first',), (' second',)) and asked.weights == (0.0, 1.0)
            place = ('first', 'second').index(answer[1:] if 'which' in question else question.split()[4][:-1])
            assert names[place] in question if 'which' in question else answer == f' {names[place]}'
            answers.add(answer[1:])
    assert {'first', 'second'} < answers


def test_no_question_has_two_right_answers(documents, images):
    """A tomato is a food and a plant."""
    kinds = KINDS | {'plant': 'plant'}
    of_kind = by_kind(images, kinds)
    kind_of_frames = {images.frames(p).tobytes(): kind for kind, of in of_kind.items() for p in of}
    met = set()
    for chunks, _ in documents(game(YesOrNo, kinds=kinds), number=30):
        for chunk in chunks:
            frames = chunk.image()
            own = {kind_of_frames.get(f.tobytes()) for f in (frames, mirror(frames))} - {None}
            met |= {(kind, chunk.texts) for kind in own}
    asked = {(kind, question, answer) for kind, (question, answer) in met}
    food, plant = ' Question: is it food? Answer:', ' Question: is it a plant? Answer:'
    assert {('food', food, ' yes'), ('plant', plant, ' yes'), ('animal', plant, ' no')} <= asked
    assert not {('food', plant, ' no'), ('plant', food, ' no')} & asked
    pairs = set()
    for chunks, _ in documents(game(Which, kinds=kinds), number=60):
        for one, other, _ in zip(*[iter(chunks)] * 3, strict=True):
            shown = [
                {kind_of_frames.get(f.tobytes()) for f in (c.image(), mirror(c.image()))} - {None} for c in (one, other)
            ]
            pairs |= {frozenset((a, b)) for a in shown[0] for b in shown[1]}
    assert frozenset(('food', 'animal')) in pairs and frozenset(('food', 'plant')) not in pairs


def test_texts_and_dialogues_are_about_what_is_shown(documents, texts):
    kinds = collections.Counter()
    for chunks, drawn in documents(game(Texts, path=texts), shots=3, number=40):
        shown = [chunk for chunk in chunks if chunk.image]
        assert all(image.names['en'] in chunk.says for image, chunk in zip(drawn, shown, strict=True))
        for i, chunk in enumerate(chunks):
            if not chunk.image:  # What comes before a dialogue's image.
                assert (chunk.texts, chunk.weights, chunk.marks) == ((ASKS,), (0.0,), True)
                assert chunks[i + 1].says.startswith('Here is')
                continue
            kinds[chunk.says[:4]] += 1
            if chunk.says.startswith('Here is'):  # Answers are learned, and questions are not.
                asked = chat([None, ' Why?'], 'So.', 'And?', 'No.')
                assert [ASKS, None, ''.join(chunk.texts)] == [*asked[:2], ''.join(asked[2:])]
                assert chunk.texts[1::2] == ('So.<|im_end|>', 'No.<|im_end|>') and chunk.marks
                assert tuple(chunk.weights) == (0.0, 1.0, 0.0, 1.0)
            else:  # A text of a data set, whose marks are characters.
                assert tuple(chunk.weights) == (1.0,) and not chunk.marks
    assert min(kinds['Here'], kinds.total() - kinds['Here']) > 30


def test_a_chat_is_asked_as_its_dialogues_are_trained_on(images, texts, tokenizer):
    few = Drawing(images, 1, dict(talk=game(Texts, path=texts)))
    dialogues = [few.document(0, np.random.default_rng(seed)) for seed in range(20)]
    begin, chunk = next(chunks for chunks in dialogues if len(chunks) == 2)
    rng, blank = np.random.default_rng(0), np.zeros((1, 8, 8, 3), np.uint8)
    row = Told.of([begin, chunk], tokenizer, blank, rng, RowFormat(200, 1))
    prompt, frames = encode_prompt(chat([blank[0], ' Why?'], 'So.', 'And?'), tokenizer, ImageFormat(8))
    assert row.tokens[: len(prompt)].tolist() == prompt and len(frames) == 1
    words = [tokenizer.decode([row.tokens[at + 1]]) for at in row.at[row.weights > 0]]
    assert ''.join(words).replace(' ', '') == 'So.<|im_end|>No.<|im_end|><EOC>'
    # Told in text, a dialogue goes on from the same words.
    layout = Layout(tokenizer)
    for part in told(dict(says=chunk.says, turns=[('Why?', 'So.')]), 'And?'):
        layout.text(part)
    assert row.told[: len(layout.tokens)].tolist() == layout.tokens


def test_an_answer_ends_with_a_sentence():
    assert whole_sentences('It is a web. It hangs') == 'It is a web.'
    assert whole_sentences('Is it? Yes! And no') == 'Is it? Yes!' and whole_sentences('a web') == ''
    for sentence in ('これは猫です。', '是！', '是吗？', 'यह बिल्ली है।', 'یہ بلی ہے۔', 'هل هي قطة؟'):
        assert whole_sentences(f'{sentence} a') == sentence


def test_a_tiled_image_is_shown_in_quarters_and_as_a_whole_before_its_questions(images):
    tiled, asks = images.only(()), (('where is it?', 'top left'), ('what is it?', 'a cat'))
    tiled.images = [dataclasses.replace(image, questions=asks) for image in tiled.images]
    tiled.blank = np.zeros((5, 8, 8, 3), np.uint8)
    tiled.frames = lambda image, view: np.arange(5, dtype=np.uint8)[:, None, None, None] + np.zeros_like(tiled.blank)
    numbers = set()
    for seed in range(20):
        one = Drawing(tiled, 1, dict(one=game(Questions, each=2, tiled=True)))
        *quarters, whole, question = chunks = one.document(0, np.random.default_rng(seed))
        if question.image is not None:  # One question was drawn twice.
            *quarters, whole = chunks
        assert [chunk.image().shape for chunk in (*quarters, whole)] == [(1, 8, 8, 3)] * 5
        assert [chunk.image().max() for chunk in (*quarters, whole)] == [1, 2, 3, 4, 0]
        assert [chunk.texts for chunk in quarters] == [(f' {place}',) for place in QUARTERS]
        assert all(chunk.weights == (0.0,) for chunk in quarters)
        about = [chunk for chunk in chunks if len(chunk.texts) == 2]
        said = [(f' Question: {question} Answer:', f' {answer}') for question, answer in asks]
        assert all(chunk.weights == (0.0, 1.0) and chunk.texts in said for chunk in about)
        assert len({chunk.texts for chunk in about}) == len(about)
        numbers.add(len(about))
    assert numbers == {1, 2}


def test_only_questions_that_begin_so_are_asked(images):
    """Of the images, too, those alone that have one."""
    some = images.only(())
    asks = ((('where is it?', 'top left'), ('what is it?', 'a cat')), (('where else?', 'below'),), ())
    some.images = [dataclasses.replace(p, questions=asks[i % 3]) for i, p in enumerate(some.images)]
    chunks = Drawing(some, 40, dict(one=game(Questions, questions='where'))).document(0, np.random.default_rng(0))
    assert {chunk.texts for chunk in chunks} == {
        (' Question: where is it? Answer:', ' top left'),
        (' Question: where else? Answer:', ' below'),
    }


def test_texts_that_are_not_there_or_too_few_are_refused(images, texts):
    for path, shots, error, says in (
        ('nowhere.jsonl', 3, FileNotFoundError, 'data/picture_texts'),
        (texts, 9, ValueError, 'only 8 of the things'),
    ):
        with pytest.raises(error, match=says):
            Drawing(images, shots, dict(go_on=game(Texts, path=path)))


# What these games drew when they were made.
DRAWN = dict(
    words=('9f45c976a29eb95b', 8, game(Words)),
    names=('5ad7a61e5348498f', 10, game(Names, repeats=0.5, prompt=' Output:')),
    kinds=('401ef4909a805234', 10, game(Kinds, kinds=KINDS)),
    yes_or_no=('abe12a6b15de4561', 10, game(YesOrNo, kinds=KINDS)),
    which=('258e509b75e0b78e', 10, game(Which, kinds=KINDS)),
    is_it=('cc371249c68f8969', 10, game(YesOrNo)),
    which_thing=('80a18159366d89dc', 10, game(Which)),
    questions=('65bce9a5aecd4b63', 10, game(Questions)),
    direction=('c5d5c8b7f82c6156', 10, game(Direction)),
)


@pytest.mark.parametrize('name', DRAWN)
def test_a_seed_draws_the_same_sequences_for_ever(images, languages, name):
    """Texts, weights and pixels, bit for bit: published losses can be had again."""
    expected, shots, one = DRAWN[name]
    if name in ('words', 'names'):
        one.languages = languages
    few = images.only(())
    if name == 'questions':
        few.images = [
            dataclasses.replace(p, questions=((f'what is in {p.style}?', p.names['en']), ('how many?', 'one')))
            for p in few.images
        ]
    elif name == 'direction':
        few.blank = np.zeros((2, 8, 8, 3), np.uint8)  # Clips, for all that it knows.
    few_shot, digest = Drawing(few, shots, {name: one}), hashlib.sha256()
    for seed in range(40):
        for chunk in few_shot.document(0, np.random.default_rng(seed)):
            digest.update(repr((tuple(chunk.texts), tuple(map(float, chunk.weights)))).encode())
            if chunk.image:
                digest.update(np.ascontiguousarray(chunk.image()).tobytes())
    assert digest.hexdigest()[:16] == expected


def test_an_empty_batch_and_no_shots_are_refused():
    for field in ('batch_size', 'shots'):
        with pytest.raises(ValueError, match=f'{field} is 0. It must be 1 or more'):
            FewShot(path=SAMPLE, games=dict(name=game(Names)), **{field: 0}).open(ImageFormat(8))


def test_a_mixture_is_drawn_by_name_and_share(images):
    """In whatever order a config lists its games, and whatever has no share."""
    one = dict(bind=game(Words, share=0.6), name=game(Names, share=0.4))
    other = dict(name=game(Names, share=4.0), bind=game(Words, share=6.0), kind=game(Kinds, share=0.0))
    texts = [
        [[chunk.texts for chunk in Drawing(images, 4, games).document(0, np.random.default_rng(i))] for i in range(9)]
        for games in (one, other)
    ]
    assert texts[0] == texts[1]
