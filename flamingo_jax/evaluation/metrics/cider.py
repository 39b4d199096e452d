"""CIDEr-D of captions (Vedantam, Zitnick and Parikh 2015), as the COCO caption evaluation computes it, without Java.

Each caption is a vector of its n-grams, n = 1 to 4, weighted by how few images have them in a reference. The score of
a caption is its mean similarity to the references, times 10. Papers print 100 times the mean over images: 1.13 here
is 113 there.

The weights come from the references that are passed, so a part of a set has other scores than the whole, and a set of
one image scores 0.
"""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flamingo_jax.evaluation.metrics import refuse_without_references, texts
from flamingo_jax.evaluation.ptb_tokenizer import refuse_without_words, tokenize

N = 4  # Longest n-gram.
SIGMA = 6.0  # Width, in bigrams, of the penalty for another length than the reference's.

NGram = tuple[str, ...]


def score(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[str]]) -> tuple[float, dict[Any, float]]:
    """The mean over images, and the score of each; 10 is the most.

    Args:
      predictions: id -> a caption.
      references: id -> captions by people.

    Raises:
      ValueError: a prediction is not a text, there are no references for it, or the references are in a script whose
        words the tokenizer does not find.
    """
    refuse_without_references(references)
    spoken = [truth for truths in references.values() for truth in truths]
    refuse_without_words(spoken)
    captions = dict(zip(references, _ngrams(texts(predictions, references)), strict=True))
    number, all_truths = [len(truths) for truths in references.values()], _ngrams(spoken)
    ends = np.cumsum(number).tolist()
    truths = {id: all_truths[end - n : end] for id, n, end in zip(references, number, ends, strict=True)}

    images = collections.Counter(ngram for some in truths.values() for ngram in set().union(*some))
    log_all = math.log(len(references))
    weight = {ngram: log_all - math.log(n) for ngram, n in images.items()}
    each = {}
    for id, some in truths.items():
        caption = _vector(captions[id], weight, log_all)
        each[id] = 10 * float(np.mean([_similarity(caption, _vector(truth, weight, log_all)) for truth in some]))
    return float(np.mean(list(each.values()))), each


def _ngrams(captions: Sequence[str]) -> list[dict[NGram, int]]:
    """How often each n-gram occurs in each caption."""
    return [
        collections.Counter(tuple(words[i : i + n]) for n in range(1, N + 1) for i in range(len(words) - n + 1))
        for words in tokenize(captions)
    ]


Vector = tuple[list[dict[NGram, float]], list[float], int]  # Weights and their norm for each n; the number of bigrams.


def _vector(counts: Mapping[NGram, int], weight: Mapping[NGram, float], unseen: float) -> Vector:
    of_length: list[dict[NGram, float]] = [{} for _ in range(N)]
    for ngram, count in counts.items():
        of_length[len(ngram) - 1][ngram] = count * weight.get(ngram, unseen)
    norms = [math.sqrt(sum(w * w for w in some.values())) for some in of_length]
    return of_length, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2)


def _similarity(caption: Vector, truth: Vector) -> float:
    """The mean over n of the cosine of clipped weights, less for another length."""
    total = 0.0
    for ours, theirs, norm, norm_of_truth in zip(caption[0], truth[0], caption[1], truth[1], strict=True):
        if norm and norm_of_truth:
            common = sum(min(w, theirs[ngram]) * theirs[ngram] for ngram, w in ours.items() if ngram in theirs)
            total += common / (norm * norm_of_truth)
    return total / N * math.exp(-((caption[2] - truth[2]) ** 2) / (2 * SIGMA**2))
