"""WUPS of NExT-QA (Xiao et al. 2021; NExT-OE's eval_oe.py): how near the words of two answers are in WordNet.

Both answers lose stop words and inflection. The similarity of two words is that of Wu and Palmer (1994) between their
first meanings. Each word of one answer counts with the nearest word of the other; words that are near to none are left
out. The similarity of the answers is the product over the words, or that of the other direction if this is less.

The questions `is it?` and `how many?` (types DB and DC) are right or wrong. If there is an additional answer, the
better one counts. This is WUPS@0, the one that the set's authors report; papers print 100 times the mean.

It needs the extra `english`, and NLTK's data (see `english.py`).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flamingo_jax.evaluation.english import nltk
from flamingo_jax.evaluation.metrics import texts

# The set's own list: NLTK's without words that matter here, such as `on`, `before` and `no`.
STOP_WORDS = frozenset(
    """
    i me my myself we our ours ourselves you you're you've you'll you'd your yours yourself yourselves he him his
    himself she she's her hers herself it it's its itself they them their theirs themselves what which who whom this
    that that'll these those am is are was were be been being have has had having do does did doing a an the and but
    if or because as until while to from of at for with about into through during again further then here there when
    where why how all any each most other some such only own so than too very s t can will just don don't should
    should've now d ll m o re ve y ain aren aren't couldn couldn't didn didn't doesn doesn't hadn hadn't hasn hasn't
    haven haven't isn isn't ma mightn mightn't mustn mustn't needn needn't shan shan't shouldn shouldn't wasn wasn't
    weren weren't won won't wouldn wouldn't
    """.split()
)
RIGHT_OR_WRONG = ('DB', 'DC')


def score(
    predictions: Mapping[Any, str], references: Mapping[Any, Mapping[str, str]]
) -> tuple[float, dict[Any, float]]:
    """The mean, and the similarity of each question, between 0 and 1.

    Args:
      predictions: id -> an answer.
      references: id -> `answer`, `type` (CW, CH, TN, TC, TP, DB, DC, DL, DO) and, if there is one, `additional`.

    Raises:
      ValueError: a prediction is not a text.
      ImportError, FileNotFoundError: NLTK or its data are missing.
    """
    each = {}
    for id, answer in zip(references, texts(predictions, references), strict=True):
        reference = references[id]
        truths = [reference['answer'], *([reference['additional']] if reference.get('additional') else [])]
        if reference['type'] in RIGHT_OR_WRONG:
            each[id] = float(any(content(answer) == content(truth) for truth in truths))
        else:
            each[id] = max(similarity(content(answer), content(truth)) for truth in truths)
    return float(np.mean(list(each.values()))), each


def similarity(answer: str, truth: str) -> float:
    """The similarity of two answers that `content` returned."""
    words, others = (nltk().word_tokenize(text) for text in (answer, truth))
    return min(_one_way(words, others), _one_way(others, words))


def _one_way(words: Sequence[str], others: Sequence[str]) -> float:
    nearest = [max((word_similarity(word, other) for other in others), default=0.0) for word in words]
    near = [value for value in nearest if value > 0]
    return float(np.prod(near)) if near else 0.0


@functools.cache
def word_similarity(word: str, other: str) -> float:
    """Wu and Palmer's similarity of the first meanings of two words; 1 if they are equal, 0 if one is unknown."""
    if word == other:
        return 1.0
    wordnet = nltk().corpus.wordnet
    meanings, others = wordnet.synsets(word), wordnet.synsets(other)
    return meanings[0].wup_similarity(others[0]) or 0.0 if meanings and others else 0.0


@functools.cache
def content(answer: str) -> str:
    """The words of an answer without inflection and stop words."""
    tagged = nltk().pos_tag(nltk().word_tokenize(answer))
    words = [lemma(word.lower(), tag) for word, tag in tagged]
    return ' '.join(word for word in words if word not in STOP_WORDS)


def lemma(word: str, tag: str) -> str:
    """A word without its inflection; its Porter stem or the word itself if WordNet does not know it (as pywsd does)."""
    parts = dict(NN='n', JJ='a', VB='v', RB='r')
    alone = nltk().pos_tag([word])[0][1]
    part = parts.get(tag[:2]) or parts.get(alone[:2], 'n')
    root = nltk().stem.WordNetLemmatizer().lemmatize(word, part)
    synsets = nltk().corpus.wordnet.synsets
    if synsets(root):
        return root
    stem = nltk().stem.PorterStemmer().stem(word)
    return stem if synsets(stem) else word
