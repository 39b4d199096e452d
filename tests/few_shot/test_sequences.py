import collections
import dataclasses
import pathlib

import numpy as np
import pytest

from flamingo_jax.few_shot.sequences import FewShot, FewShotConfig, mirror_frames
from flamingo_jax.inputs.sources.picture_set import PictureSet

SAMPLE = str(pathlib.Path(__file__).parents[2] / 'data/picture_dictionary/sample')


class Watched(FewShot):
    """Remembers which pictures were drawn, in order."""

    def _draw(self, *args):
        picture = super()._draw(*args)
        self.drawn.append(picture)
        return picture


@pytest.fixture(scope='module')
def pictures():
    return PictureSet(SAMPLE, 'train', image_size=8)


@pytest.fixture(scope='module')
def languages(pictures):
    """All languages, so that held-out ones come up."""
    return tuple(sorted(pictures.pictures[0].names))


def documents(pictures, number=150, **fields):
    """(chunks, pictures drawn) of some documents."""
    few_shot = Watched(pictures, FewShotConfig(**fields))
    for seed in range(number):
        few_shot.drawn = []
        yield few_shot(np.random.default_rng(seed)), few_shot.drawn


def test_bind_gives_each_concept_one_word_in_a_document(pictures):
    labels_of = {}
    for chunks, drawn in documents(pictures, text_keys=0.0, blend=0.0, real_words=0.0):
        assert len(chunks) == len(drawn) == 10
        words, seen = {}, set()
        for chunk, picture in zip(chunks, drawn, strict=True):
            prompt, label = chunk.texts
            assert prompt == '' and label[0] == ' '
            assert words.setdefault(picture.concept, label) == label
            # Only a word that came before can be known.
            assert chunk.weights == (0.0, 1.0 if picture.concept in seen else 0.0)
            seen.add(picture.concept)
            labels_of.setdefault(picture.concept, set()).add(label)
        assert len(set(words.values())) == len(words) <= 5
    assert max(map(len, labels_of.values())) > 1  # The next document calls it otherwise.


def test_the_first_label_may_weigh(pictures):
    weights = {chunk.weights[-1] for chunks, _ in documents(pictures, 10, first_label=0.25) for chunk in chunks}
    assert weights == {0.25, 1.0}
    assert all(chunks[0].weights[-1] == 0.25 for chunks, _ in documents(pictures, 10, first_label=0.25))


@pytest.mark.parametrize('kind', ['bind', 'name'])
def test_no_style_twice_running(pictures, kind):
    for _, drawn in documents(pictures, mixture={kind: 1.0}, text_keys=0.0, blend=0.0):
        assert all(a.style != b.style for a, b in zip(drawn, drawn[1:], strict=False))


def test_text_keys_are_names_with_the_same_words(pictures):
    number = 0
    for chunks, drawn in documents(pictures, text_keys=1.0, blend=0.0, real_words=0.0):
        with_picture = iter(drawn)
        words = {}
        for chunk in chunks:
            if chunk.picture is None:
                name, prompt, label = chunk.texts
                number += 1
                assert chunk.weights[:2] == (0.0, 0.0)
            else:
                name, (prompt, label) = ' ' + next(with_picture).names['en'], chunk.texts
            assert prompt == '' and words.setdefault(name, label) == label
    assert 500 < number < 1000  # About half of 1,500.


def test_held_out_languages_are_never_named(pictures, languages):
    """Neither as an answer, nor as a key, nor as a label borrowed from another concept."""
    forbidden = {
        (language, picture.names[language]) for picture in pictures.pictures for language in picture.heldout_languages
    }
    allowed = {
        (language, name)
        for picture in pictures.pictures
        for language, name in picture.names.items()
        if language not in picture.heldout_languages
    }
    checked = 0
    for language in sorted({language for language, _ in forbidden})[:8]:
        only = {name for spoken, name in forbidden - allowed if spoken == language}
        checked += len(only)
        fields = dict(languages=(language,), mixture=dict(bind=0.5, name=0.5), text_keys=1.0, real_words=1.0)
        for chunks, _ in documents(pictures, 60, **fields):
            for chunk in chunks:
                assert not only & {text.removeprefix(' ') for text in chunk.texts}
    assert checked > 20


def test_name_gives_the_true_names(pictures, languages):
    skipped = 0
    for chunks, drawn in documents(pictures, 60, mixture=dict(name=1.0), languages=languages):
        assert len(drawn) == 10 and len({picture.concept for picture in drawn}) == 10
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


def test_a_blend_is_a_mixture_of_two_pictures(pictures):
    few_shot = Watched(pictures, FewShotConfig(blend=1.0, text_keys=0.0, real_words=0.0))
    blends = 0
    for seed in range(10):
        few_shot.drawn = []
        chunks = few_shot(np.random.default_rng(seed))
        drawn = iter(few_shot.drawn)
        extra = len(few_shot.drawn) - len(chunks)
        blends += extra
        partners = collections.defaultdict(set)  # Of each class.
        for chunk in chunks:
            picture, frames = next(drawn), chunk.picture()
            assert frames.dtype == np.uint8 and frames.shape == (1, 8, 8, 3)
            own = pictures.frames(picture)
            if not any((frames == way).all() for way in (own, mirror_frames(own))):
                partners[picture.concept].add(next(drawn).concept)
        assert all(len(others) == 1 for others in partners.values()) and next(drawn, None) is None
        assert len(partners) == len({chunk.texts[-1] for chunk in chunks})
    assert blends == 100


def test_the_generator_decides_everything(pictures, languages):
    def first(seed):
        chunks = FewShot(pictures, FewShotConfig(mixture=dict(bind=0.5, name=0.5), languages=languages))(
            np.random.default_rng(seed)
        )
        return [(chunk.texts, chunk.weights) for chunk in chunks], [c.picture() for c in chunks if c.picture]

    one, again, other = first(3), first(3), first(4)
    assert one[0] == again[0] != other[0]
    for a, b in zip(one[1], again[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_mirrored_pixels_and_features():
    pixels = np.arange(24).reshape(1, 2, 4, 3)
    np.testing.assert_array_equal(mirror_frames(pixels)[0, :, 0], pixels[0, :, 3])
    features = np.arange(9 * 2).reshape(1, 9, 2)  # A square of three by three.
    np.testing.assert_array_equal(mirror_frames(features)[0, [0, 1, 5]], features[0, [2, 1, 3]])
    with pytest.raises(ValueError, match='8 features are no square'):
        mirror_frames(np.zeros((1, 8, 2)))


def test_errors(pictures):
    few = dataclasses.replace(FewShotConfig(), classes=(2, 500))
    with pytest.raises(ValueError, match='500 classes need at least 1000 concepts; the picture set has'):
        FewShot(pictures, few)
    with pytest.raises(ValueError, match=r"no names in \['xx'\]; it has .*'en'"):
        FewShot(pictures, FewShotConfig(languages=('en', 'xx')))
    with pytest.raises(ValueError, match='5000 pictures .* concepts'):
        FewShot(pictures, FewShotConfig(mixture=dict(bind=0.5, name=0.5), shots=5000))


KINDS = {'animal': 'animal', 'food': 'food', 'transport': 'vehicle'}


def test_names_may_come_again(pictures):
    repeated = 0
    for _, drawn in documents(pictures, 30, mixture=dict(name=1.0), repeats=1.0, shots=6):
        repeated += len({picture.concept for picture in drawn}) < len(drawn) == 6
    assert repeated > 20


def test_questions_ask_for_kinds_and_for_one_of_two(pictures):
    for sequence in ('kind', 'yes_or_no', 'which'):
        answers = set()
        for chunks, _ in documents(pictures, 20, mixture={sequence: 1.0}, shots=6, kinds=KINDS):
            assert sum(chunk.picture is not None for chunk in chunks) == 6
            asked = [chunk for chunk in chunks if chunk.weights[-1]]
            assert len(asked) == (3 if sequence == 'which' else 6)
            answers |= {chunk.texts[-1] for chunk in asked}
        expected = {' animal', ' food', ' vehicle'}
        if sequence == 'yes_or_no':
            expected = {' yes', ' no'}
        assert answers == (expected | {' first', ' second'} if sequence == 'which' else expected)


@pytest.mark.parametrize(
    'mixture, message',
    [
        (dict(bnid=1.0), 'bnid'),
        (dict(kind=1.0), 'two kinds'),
        (dict(question=1.0), 'have some'),
        (dict(direction=1.0), 'clips'),
    ],
)
def test_sequences_that_the_pictures_do_not_allow_are_refused(pictures, mixture, message):
    with pytest.raises(ValueError, match=message):
        FewShot(pictures, FewShotConfig(mixture=mixture))
