"""How often a 95 % interval holds the truth, by simulation, where an image has several questions."""

import numpy as np
import pytest

from flamingo_jax.evaluation import intervals
from flamingo_jax.evaluation.metrics import roc_auc

LEAST = 0.92  # Of 95 %; 250 simulated sets of a true 95 % fall below it once in 60 times; the seeds are fixed.
MOST_OF_FAR_FROM_0_AND_1 = 0.98  # A wider interval than needed would hide differences.
SETS = 250


def sets(images: int, right: float, rng):
    """Simulated answers: images are of unequal difficulty and have 1 to 8 questions. The truth is `right`."""
    spread = 1 / 0.3 - 1
    for _ in range(SETS):
        chances = rng.beta(right * spread, (1 - right) * spread, images)
        numbers = rng.integers(1, 9, images)
        yield [rng.random(n) < chance for n, chance in zip(numbers, chances, strict=True)]


def scored(marks):
    clusters = {f'{i}-{j}': (str(i),) for i, some in enumerate(marks) for j in range(len(some))}
    return intervals.mean(dict(zip(clusters, np.concatenate(marks).astype(float).tolist(), strict=True)), clusters)


@pytest.mark.parametrize('images', [5, 40])
@pytest.mark.parametrize('right', [0.5, 0.9, 0.98])
def test_intervals_over_images_hold_the_truth(images, right):
    rng = np.random.default_rng(images)
    held = np.mean([score.low <= right <= score.high for score in map(scored, sets(images, right, rng))])
    assert held >= LEAST
    if right == 0.5:
        assert held <= MOST_OF_FAR_FROM_0_AND_1


@pytest.mark.parametrize('images, questions', [(22, 100), (22, 1000), pytest.param(160, 1000, marks=pytest.mark.long)])
def test_intervals_over_pairs_of_images_hold_the_truth(images, questions):
    """Each question is about two images, and as hard as both together; pairs that share one err together."""
    rng, held = np.random.default_rng(images + questions), []
    for _ in range(SETS):
        eases = rng.normal(0, 0.15, images)  # The truth is .6, whichever images are drawn.
        asked = np.array([rng.choice(images, 2, replace=False) for _ in range(questions)])
        marks = rng.random(questions) < np.clip(0.6 + eases[asked].sum(axis=1), 0, 1)
        clusters = {str(i): tuple(map(str, both)) for i, both in enumerate(asked)}
        each = dict(zip(clusters, marks.astype(float).tolist(), strict=True))
        score = intervals.mean(each, clusters)
        held.append(score.low <= 0.6 <= score.high)
    assert np.mean(held) >= LEAST


def test_without_clusters_they_would_not():
    held = []
    for marks in sets(40, 0.5, np.random.default_rng(0)):
        score = intervals.share(np.concatenate(marks).tolist())
        held.append(score.low <= 0.5 <= score.high)
    assert np.mean(held) < 0.85


def test_intervals_of_roc_auc_hold_the_truth():
    """Normal distributions that lie 1 apart have an area of Phi(1 / sqrt(2)) = .7602. Four memes share an image."""
    rng, held, wide = np.random.default_rng(0), [], []
    for _ in range(SETS):
        right = rng.random(200) < 0.4
        noise = (rng.standard_normal(50).repeat(4) + rng.standard_normal(200)) / 2**0.5
        ids = [str(i) for i in range(200)]
        predictions, references = (
            dict(zip(ids, of.tolist(), strict=True)) for of in (noise + right, right.astype(int))
        )
        _, each = roc_auc.score(predictions, references)
        score = intervals.mean(each, {id: (str(int(id) // 4),) for id in ids})
        held.append(score.low <= 0.7602 <= score.high)
        wide.append(score.interval)
        assert np.mean(list(each.values())) == pytest.approx(score.value)
    assert LEAST <= np.mean(held) <= MOST_OF_FAR_FROM_0_AND_1


def test_a_paired_difference_holds_the_truth_and_is_narrower():
    """Two models that share what is hard: the second is right in .05 more of the answers."""
    rng, held, narrower = np.random.default_rng(0), [], []
    for marks in sets(60, 0.6, rng):
        clusters = {f'{i}-{j}': (str(i),) for i, some in enumerate(marks) for j in range(len(some))}
        first = dict(zip(clusters, np.concatenate(marks).astype(float).tolist(), strict=True))
        # Of the wrong answers, an eighth becomes right: 5 % of all.
        second = {id: mark or float(rng.random() < 0.125) for id, mark in first.items()}
        apart, half = intervals.difference(first, second, clusters)
        assert apart == pytest.approx(np.mean(list(second.values())) - np.mean(list(first.values())))
        held.append(abs(apart - 0.05) <= half)
        narrower.append(half < 0.6 * scored(marks).interval)
    assert LEAST <= np.mean(held) and np.mean(narrower) > 0.95


def test_one_image_tells_nothing():
    score = scored([np.array([True] * 8)])
    assert score.interval > 0.9
    assert intervals.difference({'a': 1.0, 'b': 1.0}, {'a': 0.0, 'b': 0.0}, {'a': ('x',), 'b': ('x',)}) == (-1.0, 1.0)


@pytest.mark.parametrize('second', [{}, {'a': 1.0}, {'a': 1.0, 'b': 1.0, 'c': 0.0}])
def test_other_queries_are_refused(second):
    with pytest.raises(ValueError, match='same queries'):
        intervals.difference({'a': 1.0, 'b': 0.0}, second, {'a': (), 'b': (), 'c': ()})
