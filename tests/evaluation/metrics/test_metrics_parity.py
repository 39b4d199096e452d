"""Equality with the official code, run live on thousands of cases."""

import math
import os

import numpy as np
import pytest

from flamingo_jax.evaluation import metrics
from flamingo_jax.evaluation.ptb_tokenizer import tokenize
from tests import metric_cases, metric_originals

pytestmark = pytest.mark.parity
TOLERANCE = dict(rel=1e-9, abs=1e-9)


def test_words_of_captions_and_sentences():
    """Of 1,000 texts, 999 have the same words as in the Java tokenizer."""
    predictions, references = metric_cases.captions(2000, 11)
    texts = [*metric_cases.CAPTIONS, *metric_cases.sentences(), *predictions.values(), *sum(references.values(), [])]
    assert len(texts) > 8000
    expected = metric_originals.ptb(texts)
    different = [text for text, words, right in zip(texts, tokenize(texts), expected, strict=True) if words != right]
    assert len(different) <= len(texts) / 1000, different


def test_cider():
    predictions, references = metric_cases.captions(2000, 3)
    value, each = metric_originals.cider(predictions, references)
    ours, of_each = metrics.score('cider', predictions, references)
    assert ours == pytest.approx(value, abs=1e-6) and of_each == pytest.approx(each, abs=1e-6)


def test_vqa_accuracy():
    predictions, references = metric_cases.answers(4000, 2)
    for name, expected in (
        ('vqa_by_value', metric_originals.open_flamingo(predictions, references)),
        ('vqa', metric_originals.open_flamingo(predictions, metric_originals.with_ids(references))),
        ('vqa_evalai', metric_originals.evalai(predictions, references)),
    ):
        assert metrics.score(name, predictions, references)[1] == pytest.approx(expected, **TOLERANCE), name


def test_scikit_learn():
    sklearn = pytest.importorskip('sklearn.metrics')
    rng = np.random.default_rng(0)
    for i in range(1000):
        n = int(rng.integers(2, 50))
        labels = np.array([0, 1, *rng.integers(0, 2, n)])
        scores = np.round(rng.standard_normal(n + 2), int(rng.choice([1, 8])))
        ids = [str(j) for j in range(n + 2)]
        value, _ = metrics.score(
            'roc_auc', dict(zip(ids, scores.tolist(), strict=True)), dict(zip(ids, labels.tolist(), strict=True))
        )
        assert value == pytest.approx(sklearn.roc_auc_score(labels, scores), **TOLERANCE)

        relevance, likelihood = rng.integers(0, 5, 100) / 4 * (rng.random(100) < 0.2), rng.standard_normal(100)
        relevance[i % 100] = 1
        k = int((relevance != 0).sum())
        value, _ = metrics.score('ndcg', {'a': likelihood.tolist()}, {'a': relevance.tolist()})
        assert value == pytest.approx(sklearn.ndcg_score([relevance], [likelihood], k=k), **TOLERANCE)

    likelihood, right = rng.standard_normal((1000, 20)), rng.integers(0, 20, 1000)
    for name, numbers in (('accuracy', (1,)), ('top1_top5', (1, 5))):
        expected = np.mean([sklearn.top_k_accuracy_score(right, likelihood, k=k) for k in numbers])
        predictions = {str(i): dict(enumerate(row.tolist())) for i, row in enumerate(likelihood)}
        value, _ = metrics.score(name, predictions, {str(i): int(r) for i, r in enumerate(right)})
        assert value == pytest.approx(expected, **TOLERANCE)


def test_mwap():
    """As the set's own script has it, with scikit-learn's average precision."""
    sklearn = pytest.importorskip('sklearn.metrics')
    predictions, references = metric_cases.clips(800, 5)
    actions = list(next(iter(predictions.values())))
    found = []
    for action in actions:
        groups = {'positive': [], 'negative': [], 'hard': []}
        for id, row in references.items():
            own, annotation = f'{row["verb"]} {row["noun"]}', row['annotation']
            shared = (row['verb'] == action.split()[0]) + (row['noun'] == action.split()[1])
            if own == action:
                groups[{0: 'negative', 1: 'positive'}.get(annotation, 'hard')].append(id)
            elif annotation == 1:
                groups['hard' if shared else 'negative'].append(id)
        if not groups['positive']:
            continue
        ids = [id for some in groups.values() for id in some]
        videos = [[references[id]['video'] for id in some] for some in groups.values()]
        weights = [1 / some.count(video) for some in videos for video in some]
        labels = [id in groups['positive'] for id in ids]
        scores = [predictions[id][action] for id in ids]
        found.append(sklearn.average_precision_score(labels, scores, sample_weight=weights))
    assert metrics.score('mwap', predictions, references)[0] == pytest.approx(np.mean(found), **TOLERANCE)


@pytest.fixture
def english():
    """NLTK with its data, and inflection."""
    pytest.importorskip('inflection')
    from flamingo_jax.evaluation.english import nltk

    try:
        return nltk()
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(str(error))


def test_ok_vqa_stems(english):
    from flamingo_jax.evaluation.metrics.vqa import STEMS, stem

    original = metric_originals.module('open_flamingo', 'eval', 'ok_vqa_utils.py')
    assert original._MANUAL_MATCHES == STEMS
    for text in [*metric_cases.texts(2000, 6), *STEMS, 'two dogs are running', 'riding horses']:
        assert stem(text) == original.stemmer.stem(text), text


def test_wups_of_words(english):
    """Against the definition, from the depths of meanings; the first word of each pair is a real answer's."""
    from flamingo_jax.evaluation.metrics.wups import word_similarity

    wordnet = english.corpus.wordnet
    for one, other in (('dog', 'cat'), ('baby', 'man'), ('run', 'walk'), ('red', 'blue'), ('zzz', 'dog'), ('a', 'a')):
        meanings = [wordnet.synsets(word) for word in (one, other)]
        expected = meanings[0][0].wup_similarity(meanings[1][0]) or 0.0 if all(meanings) else 0.0
        assert word_similarity(one, other) == (1.0 if one == other else expected)
    value, each = metrics.score(
        'wups',
        dict(a='the dog', b='two', c='running', d=''),
        dict(
            a=dict(answer='a dog', type='DO'),
            b=dict(answer='three', type='DC', additional='two'),
            c=dict(answer='walking', type='CW'),
            d=dict(answer='cat', type='TN'),
        ),
    )
    assert each['a'] == each['b'] == 1.0 and 0 < each['c'] < 1 and each['d'] == 0.0
    assert value == pytest.approx(math.fsum(each.values()) / 4)


def test_missing_data_of_nltk_are_named(tmp_path, monkeypatch):
    pytest.importorskip('nltk')
    import nltk.data

    from flamingo_jax.evaluation import english

    monkeypatch.setattr(nltk.data, 'path', [os.fspath(tmp_path)])
    english.nltk.cache_clear()
    with pytest.raises(FileNotFoundError, match='nltk.downloader wordnet'):
        english.nltk()
    english.nltk.cache_clear()
