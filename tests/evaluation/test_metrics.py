"""Exact match, scores with their intervals, and what a metric refuses."""

import sys
import unicodedata

import pytest

from flamingo_jax.evaluation import english, intervals, metrics
from flamingo_jax.evaluation.metrics import exact, vqa


def exactly(right, clusters=None):
    ids = [str(i) for i in range(len(right))]
    predictions = {id: 'dog' if mark else 'cat' for id, mark in zip(ids, right, strict=True)}
    clusters = dict(zip(ids, clusters or [()] * len(ids), strict=True))
    _, each = exact.score(predictions, {id: ('Dog.', 'hound') for id in ids})
    return intervals.mean(each, clusters), each


def test_any_reference_counts_but_for_case_white_space_and_a_full_stop():
    predictions = dict(a=' DOG. ', b='hound', c='a dog', d='', e='dog .', f='dog 。\n')
    value, each = metrics.score('exact', predictions, {id: ('dog', 'hound') for id in predictions})
    assert each == dict(a=1.0, b=1.0, c=0.0, d=0.0, e=1.0, f=1.0) and value == pytest.approx(2 / 3)


EQUAL = [
    ('me\u0300o', 'mèo'), (unicodedata.normalize('NFD', '고양이'), '고양이'), ('ｶﾒﾗ', 'カメラ'), ('ＣＡＴ', 'cat'),
    ('بلی۔', 'بلی'), ('ድመት።', 'ድመት'), ('ក្មា។', 'ក្មា'), ('कुत्ता।', 'कुत्ता'), ('ကြောင်။', 'ကြောင်'), ('կատու։', 'կատու'),
    ('猫．', '猫'), ('猫。', '猫'), ('قطة\u200f', 'قطة'), ('\u200fחתול.\u200f', 'חתול'),
    ('İstanbul', 'istanbul'), ('IŞIK', 'ışık'), ('KEDİ', 'kedi'), ('Straße', 'STRASSE'),
]  # fmt: skip


@pytest.mark.parametrize('answer, truth', EQUAL)
def test_what_unicode_spells_in_two_ways_is_equal(answer, truth):
    assert exact.same_answer(answer, truth) and exact.same_answer(truth, answer)


def test_an_answer_in_ascii_is_compared_as_it_stands():
    """But for case, outer white space and a final full stop; and each letter on its own, also within a text."""
    for text in (chr(i) for i in range(128)):
        assert exact.normal(text) == text.strip().rstrip('.|').rstrip().lower()
        assert exact.normal(f'A{text}B') == f'a{text.lower()}b'
    for answer, truth in (
        ('cat!', 'cat'),
        ('猫、', '猫'),
        ('"cat"', 'cat'),
        ('मी\u200dल', 'मील'),
        ('مي\u200cخواهم', 'ميخواهم'),
    ):
        assert not exact.same_answer(answer, truth)


@pytest.mark.parametrize('predictions', [dict(a='x'), dict(a='x', b='y', c='z')])
def test_predictions_of_other_ids_are_refused(predictions):
    with pytest.raises(ValueError, match="'[bc]' has no"):
        metrics.score('exact', predictions, dict(a=('x',), b=('y',)))
    with pytest.raises(ValueError, match="prediction for 'a' is None. It must be one text"):
        metrics.score('exact', dict(a=None), dict(a=('x',)))
    with pytest.raises(ValueError, match="no metric 'bleu'. The metrics are .*'exact'"):
        metrics.score('bleu', {}, {})


def test_the_interval_of_a_share_is_wilsons():
    score, each = exactly([True] * 8 + [False] * 2)
    assert score.value == 0.8 and sum(each.values()) == 8
    # By hand: centre (.8 + 1.96² / 20) / (1 + 1.96² / 10) = .7167, half-width .2266; the lower end is .4901.
    assert score.interval == pytest.approx(0.8 - 0.4901, abs=2e-4)
    assert exactly([True] * 10)[0].interval > 0.2


def test_questions_about_one_image_are_not_independent():
    right = [True, False] * 50
    alone, _ = exactly(right)
    of_one_mind, _ = exactly(
        [mark for mark in right for _ in range(4)], [(str(i),) for i in range(100) for _ in range(4)]
    )
    assert of_one_mind.value == alone.value and of_one_mind.interval == pytest.approx(alone.interval, rel=0.05)
    alone_again, _ = exactly([mark for mark in right for _ in range(4)])
    assert alone_again.interval == pytest.approx(alone.interval / 2, rel=0.05)


@pytest.mark.parametrize('missing', ['nltk', 'inflection'])
def test_what_a_metric_of_english_needs_is_told_in_one_line(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    ask = english.nltk.__wrapped__ if missing == 'nltk' else lambda: vqa.stem.__wrapped__('dogs')
    with pytest.raises(
        ImportError, match=r"pip install 'flamingo_jax\[english\]' && python -m nltk.downloader wordnet"
    ):
        ask()
