"""Metrics of the likelihoods of all candidates, against their definitions written out."""

import itertools
import math
import random

import numpy as np
import pytest

from flamingo_jax.evaluation import metrics


def test_roc_auc_is_the_share_of_pairs_in_the_right_order():
    rng = random.Random(0)
    for n in range(2, 40):
        labels = ['yes', 'no', *rng.choices(['yes', 'no'], k=n)]
        scores = [round(rng.gauss(label == 'yes', 1), rng.choice([0, 6])) for label in labels]
        pairs = [(y, x) for (y, a), (x, b) in itertools.product(zip(scores, labels, strict=True), repeat=2) if a > b]
        expected = np.mean([(y > x) + (y == x) / 2 for y, x in pairs])
        ids = [str(i) for i in range(len(labels))]
        shift = [rng.gauss(-5, 1) for _ in ids]  # Only the difference of the two likelihoods counts.
        likelihoods = {i: dict(no=c, yes=c + s) for i, c, s in zip(ids, shift, scores, strict=True)}
        value, each = metrics.score('roc_auc', dict(zip(ids, scores, strict=True)), dict(zip(ids, labels, strict=True)))
        assert value == pytest.approx(expected) == np.mean(list(each.values()))
        of_numbers = {id: int(label == 'yes') for id, label in zip(ids, labels, strict=True)}
        if len(set(scores)) == len(scores):  # The shift breaks ties by rounding.
            assert metrics.score('roc_auc', likelihoods, of_numbers)[0] == pytest.approx(expected)


def test_an_impossible_answer_is_no_error():
    nothing = dict(yes=-math.inf, no=-math.inf)
    predictions = dict(a=nothing, b=dict(yes=-1.0, no=-math.inf), c=nothing)
    assert metrics.score('roc_auc', predictions, dict(a='no', b='yes', c='yes'))[0] == 0.75


def test_top1_and_top5():
    classes = [f'class {i}' for i in range(8)]
    predictions = {str(i): {c: -float((j - i) % 8) for j, c in enumerate(classes)} for i in range(8)}
    # Of query i, class i is the likeliest, then i + 1 and so on.
    references = {str(i): classes[(i + shift) % 8] for i, shift in enumerate([0, 0, 1, 4, 5, 0, 7, 2])}
    assert metrics.score('accuracy', predictions, references)[0] == 3 / 8
    chosen = {id: max(found, key=found.__getitem__) for id, found in predictions.items()}
    assert metrics.score('accuracy', chosen, references) == metrics.score('accuracy', predictions, references)
    assert metrics.score('accuracy', {0: [-1.0, -2.0], 1: [-1.0, -2.0]}, {0: 0, 1: 1}) == (0.5, {0: 1.0, 1: 0.0})
    assert metrics.score('accuracy', predictions, {id: (right,) for id, right in references.items()})[0] == 3 / 8
    value, each = metrics.score('top1_top5', predictions, references)
    assert list(each.values()) == [1, 1, 0.5, 0.5, 0, 1, 0, 0.5] and value == 4.5 / 8


@pytest.mark.parametrize('name', ['accuracy', 'top1_top5', 'ndcg'])
def test_the_order_of_the_candidates_does_not_matter(name):
    rng = random.Random(0)
    for _ in range(50):
        likelihoods = {f'c{i}': float(rng.randrange(4)) for i in range(9)}  # With ties.
        relevance = {c: rng.choice([0, 0.5, 1]) for c in likelihoods} | {'c0': 1}
        reference = relevance if name == 'ndcg' else 'c3'
        order = rng.sample(list(likelihoods), 9)
        one, other = (
            metrics.score(name, {'a': p}, {'a': reference}) for p in (likelihoods, {c: likelihoods[c] for c in order})
        )
        assert one == other


def test_ndcg():
    """Three of five answers are relevant. The model ranks them 1, 3 and 5, of which the last is beyond k = 3."""
    likelihoods = dict(a=-1.0, b=-2.0, c=-3.0, d=-4.0, e=-5.0)
    relevance = dict(a=0.5, b=0.0, c=1.0, d=0.0, e=0.2)
    expected = (0.5 + 1 / 2) / (1 + 0.5 / math.log2(3) + 0.2 / 2)
    assert metrics.score('ndcg', {'q': likelihoods}, {'q': relevance})[0] == pytest.approx(expected)
    as_lists = {'q': list(likelihoods.values())}, {'q': list(relevance.values())}
    assert metrics.score('ndcg', *as_lists)[0] == pytest.approx(expected)


CLIP = dict(video='f', verb='cut', noun='phone', annotation=1)


@pytest.mark.parametrize(
    'name, predictions, references, message',
    [
        ('roc_auc', {'a': 1.0, 'b': 2.0}, {'a': 'yes', 'b': 'yes'}, "all 2 right answers are 'yes'"),
        ('roc_auc', {'a': 1.0, 'b': 2.0}, {'a': 'yes', 'b': 'maybe'}, "'b' is 'maybe'"),
        ('roc_auc', {'a': math.nan, 'b': 2.0}, {'a': 'yes', 'b': 'no'}, "'a' .*NaN"),
        ('roc_auc', {'a': dict(yes=1.0), 'b': 2.0}, {'a': 'yes', 'b': 'no'}, "must be 'yes' and 'no'"),
        ('accuracy', {'a': dict(x=math.nan, y=0.0)}, {'a': 'x'}, "no likelihood for 'x'"),
        ('accuracy', {'a': dict(x=1.0)}, {'a': 'z'}, "right class of 'a' is 'z'"),
        ('top1_top5', {'a': {}}, {'a': 'z'}, 'no candidates'),
        ('ndcg', {'a': dict(x=1.0)}, {'a': dict(y=1.0)}, 'same answers'),
        ('ndcg', {'a': dict(x=1.0)}, {'a': dict(x=0.0)}, 'Leave it out'),
        ('ndcg', {'a': [1.0, math.nan]}, {'a': [0.0, 1.0]}, 'NaN'),
        ('mwap', {'a': {'cut phone': 1.0}}, {'a': CLIP | dict(annotation=0)}, 'needs a positive clip'),
        ('mwap', {'a': {'cut shoe': 1.0}}, {'a': CLIP}, "no likelihood for 'cut phone'"),
        ('mwap', {'a': {'cut phone': math.nan}}, {'a': CLIP}, 'NaN'),
    ],
)
def test_bad_input(name, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        metrics.score(name, predictions, references)
