"""Every metric of texts and clips gives what its official code gave (tests/golden/make_metrics.py)."""

import json
import pathlib
import unicodedata

import numpy as np
import pytest

from flamingo_jax.evaluation import metrics
from flamingo_jax.evaluation.ptb_tokenizer import tokenize
from tests import metric_cases

GOLDEN = json.loads((pathlib.Path(__file__).parents[2] / 'golden/metrics.json').read_text(encoding='utf-8'))
TOLERANCE = dict(rel=1e-9, abs=1e-9)


def test_words_are_those_of_the_java_tokenizer():
    texts, expected = GOLDEN['ptb_tokenizer']['texts'], GOLDEN['ptb_tokenizer']['words']
    assert len(texts) > 100
    for text, found, words in zip(texts, tokenize(texts), expected, strict=True):
        assert found == words, text


def test_each_caption_is_tokenized_by_itself():
    captions = ['vitamin C.', 'The letter R.', '', 'a line\nand another']
    assert tokenize(captions) == [['vitamin', 'c.'], ['the', 'letter', 'r'], [], ['a', 'line', 'and', 'another']]
    captions += metric_cases.CAPTIONS
    assert tokenize(captions) == [tokenize([caption])[0] for caption in captions]
    assert tokenize([]) == []


def test_cider():
    golden = GOLDEN['cider']
    value, each = metrics.score('cider', golden['predictions'], golden['references'])
    assert value == pytest.approx(golden['value'], **TOLERANCE) and each == pytest.approx(golden['each'], **TOLERANCE)
    assert 0.5 < value < 10 and min(each.values()) == 0.0


def test_cider_depends_on_the_set():
    """The weights of words come from the references that are passed; one image alone scores 0."""
    predictions, references = {'a': 'a dog runs', 'b': 'a cat'}, {'a': ['a dog runs'], 'b': ['two cats']}
    assert metrics.score('cider', predictions, references)[1]['a'] > 1
    assert metrics.score('cider', {'a': 'a dog runs'}, {'a': ['a dog runs']}) == (0.0, {'a': 0.0})


@pytest.mark.parametrize(
    'answer, truth',
    [
        ('一只猫坐在垫子上', '一只黑猫坐在垫子上'),
        ('ねこがマットの上に座っている', '黒いねこがマットの上に座っている'),
        ('बिल्ली चटाई पर बैठी है', 'काली बिल्ली चटाई पर बैठी है'),
        ('แมวนั่งบนเสื่อ', 'แมวดำนั่งบนเสื่อ'),
        (unicodedata.normalize('NFD', 'con mèo ngồi'), unicodedata.normalize('NFD', 'con mèo đen ngồi')),
    ],
)
def test_captions_whose_words_cider_cannot_find_are_refused(answer, truth):
    with pytest.raises(ValueError, match=f'words of 2 of 3 captions cannot be found, such as of {truth!r}. Put spaces'):
        metrics.score('cider', {'a': answer, 'b': 'a cat'}, {'a': [truth, truth], 'b': ['a dog']})


def test_captions_with_words_in_other_scripts_have_a_score():
    """Also where some have a word in another script, which the official code scores."""
    spaced, others = {'a': '一只 猫 坐在 垫子 上', 'b': '狗'}, {'a': ['一只 黑猫 坐在 垫子 上'], 'b': ['狗']}
    assert metrics.score('cider', spaced, others)[1]['a'] > 1
    vietnamese = {'a': 'con mèo ngồi', 'b': 'chó'}
    assert metrics.score('cider', vietnamese, {'a': ['con mèo đen ngồi', 'नमस्ते'], 'b': ['chó']})[1]['a'] > 1


@pytest.mark.parametrize('name', GOLDEN['vqa']['each'])
def test_vqa_accuracy(name):
    golden = GOLDEN['vqa']
    value, each = metrics.score(name, golden['predictions'], golden['references'])
    assert each == pytest.approx(golden['each'][name], **TOLERANCE)
    assert value == pytest.approx(np.mean(list(golden['each'][name].values())), **TOLERANCE)


def test_the_versions_of_vqa_accuracy_differ_where_they_should():
    # Three annotators of ten: .9 whether by text or by entry, and min(1, 3 / 3) is wrong.
    assert metrics.score('vqa', {'a': 'Dog.'}, {'a': ['dog'] * 3 + ['cat'] * 7})[0] == pytest.approx(0.9)
    entries = [dict(answer='dog', answer_confidence='yes')] * 10
    for name, expected in dict(vqa=1.0, vqa_by_value=0.0, vqa_2021=0.0).items():
        assert metrics.score(name, {'a': 'dog'}, {'a': entries})[0] == expected
    all_two = {'a': ['two'] * 10}
    for name, expected in dict(vqa=1.0, vqa_2021=1.0, vqa_2016=0.0).items():
        assert metrics.score(name, {'a': 'two'}, all_two)[0] == expected
    assert metrics.score('vqa_2021', {'a': 'Two'}, all_two)[0] == 0.0
    assert metrics.score('vqa', {'a': "dog's"}, {'a': ["dog 's"] * 10})[0] == 0.0
    assert metrics.score('vqa_evalai', {'a': "dog's"}, {'a': ["dog 's"] * 10})[0] == 1.0


def test_references_are_not_changed():
    """The official code normalises annotators' answers in place."""
    before = json.dumps(GOLDEN['vqa']['references'])
    for name in GOLDEN['vqa']['each']:
        metrics.score(name, GOLDEN['vqa']['predictions'], GOLDEN['vqa']['references'])
    assert json.dumps(GOLDEN['vqa']['references']) == before


def test_mwap():
    golden = GOLDEN['mwap']
    value, each = metrics.score('mwap', golden['predictions'], golden['references'])
    assert value == pytest.approx(golden['value'], **TOLERANCE)
    assert np.mean(list(each.values())) == pytest.approx(value)


def test_the_score_of_a_clip_is_its_influence():
    """Without the clips of a video, mWAP changes as their scores say, to first order in their weight."""
    predictions, references = metric_cases.clips(300, 1)
    references = {id: row | dict(video=f'video {int(id) // 4}') for id, row in references.items()}
    value, each = metrics.score('mwap', predictions, references)
    changes, expected = [], []
    for video in dict.fromkeys(row['video'] for row in references.values()):
        kept = {id: row for id, row in references.items() if row['video'] != video}
        without, _ = metrics.score('mwap', {id: predictions[id] for id in kept}, kept)
        changes.append(value - without)
        expected.append(sum(each[id] - value for id in each if id not in kept) / len(each))
    assert np.corrcoef(changes, expected)[0, 1] > 0.95 and np.std(changes) == pytest.approx(np.std(expected), rel=0.1)


def test_ivqa_accuracy():
    """The official code looks answers up as they are spelled."""
    given = ['Dog', 'dog', 'dog', 'cat', 'hound']
    for answer, expected in (('dog', 1.0), ('Dog', 0.5), ('cat', 0.5), ('cat.', 0.0), ('Cat', 0.0), ('', 0.0)):
        assert metrics.score('ivqa', {'a': answer}, {'a': given}) == (expected, {'a': expected})


@pytest.mark.parametrize('name', ['cider', 'vqa', 'vqa_2016', 'vqa_evalai', 'ivqa'])
def test_bad_input_of_metrics_of_texts(name):
    value, each = metrics.score(name, {'a': '', 'b': 'dog'}, {'a': ['dog', 'dog'], 'b': ['dog', 'dog']})
    assert each['a'] == 0.0 and np.isfinite(value)
    with pytest.raises(ValueError, match="references of 'a' are"):
        metrics.score(name, {'a': 'dog'}, {'a': []})
    with pytest.raises(ValueError, match="'b' has no prediction"):
        metrics.score(name, {'a': 'dog'}, {'a': ['dog'], 'b': ['dog']})
    with pytest.raises(ValueError, match='nothing to score'):
        metrics.score(name, {}, {})
    with pytest.raises(ValueError, match='must be one text'):
        metrics.texts({'a': ['dog', 'cat']}, {'a': ['dog']})
