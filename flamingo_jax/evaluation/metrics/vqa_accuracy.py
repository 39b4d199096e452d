"""VQA accuracy (Antol et al. 2015), as papers report it: how many annotators gave the answer, over 3 and at most 1.

The official mean leaves out each of the 10 annotators in turn. So an answer that 1, 2 or 3 of them gave scores .3, .6
or .9, and one that 4 gave scores 1: it is not min(1, n / 3).

Several versions of the official code circulate. They are files beside this one:

    vqa_accuracy
        Both sides are always normalised, and an annotator is left out by his place: OpenFlamingo 2.0.1 and lmms-eval on
        VQAv2, whose entries have an `answer_id`.
    vqa_accuracy_2021
        GT-Vision-Lab/VQA since March 2021: both sides are normalised, but neither if all annotators agree.
    vqa_accuracy_2016
        The same from 2016 on: the prediction is normalised; annotators' answers only lose their punctuation, and keep
        it if all agree.
    vqa_accuracy_left_out_by_value
        OpenFlamingo 2.0.1 on any file: an annotator is left out with all whose entry equals his. In files without
        `answer_id` (VizWiz), annotators who agree are lost.
    vqa_accuracy_evalai
        mmf and lmms-eval on OK-VQA, TextVQA and VizWiz: commas and question marks vanish first, and `'s` is split off.
    vqa_accuracy_ok_vqa
        OpenFlamingo 2.0.1 on OK-VQA: the prediction is stemmed, as that set's answers are.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flamingo_jax.evaluation.metrics import refuse_without_references, texts

Entry = str | Mapping[str, Any]  # An annotator's answer, or the entry of the annotation file: `answer` and others.

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
NUMBERS = dict(
    none='0',
    zero='0',
    one='1',
    two='2',
    three='3',
    four='4',
    five='5',
    six='6',
    seven='7',
    eight='8',
    nine='9',
    ten='10',
)
ARTICLES = ('a', 'an', 'the')
# Contractions. The code also knows each without one of its apostrophes.
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()
SPELLINGS = {
    whole[:i] + whole[i + 1 :]: whole for whole in CONTRACTIONS for i, letter in enumerate(whole) if letter == "'"
} | {"somebody'd": 'somebodyd'}  # So the official code has it.


def score(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[Entry]]) -> tuple[float, dict[Any, float]]:
    """The mean accuracy, and that of each question, between 0 and 1.

    Args:
      predictions: id -> an answer.
      references: id -> the answers of the annotators, usually 10, as texts or as the annotation file has them.

    Raises:
      ValueError: a prediction is not a text, or a question has no answers.
    """
    return mean_accuracy(predictions, references, normal)


def mean_accuracy(
    predictions: Mapping[Any, str],
    references: Mapping[Any, Sequence[Entry]],
    normal: Callable[[str], str],
) -> tuple[float, dict[Any, float]]:
    """The mean accuracy, and that of each question; `normal` gives answers the form in which they are compared."""
    refuse_without_references(references)
    each = {}
    for id, answer in zip(references, texts(predictions, references), strict=True):
        answer, *given = (normal(stripped(text)) for text in (answer, *map(answer_of, references[id])))
        agree = [other == answer for other in given]
        each[id] = float(np.mean([min(1.0, (sum(agree) - own) / 3) for own in agree]))
    return float(np.mean(list(each.values()))), each


def answer_of(entry: Entry) -> str:
    """The text of an annotator's answer."""
    return entry if isinstance(entry, str) else entry['answer']


def stripped(answer: str) -> str:
    """An answer in one line, without white space around it."""
    return answer.replace('\n', ' ').replace('\t', ' ').strip()


def normal(answer: str) -> str:
    """An answer in the form that is compared."""
    return normal_words(without_punctuation(answer))


def without_punctuation(answer: str) -> str:
    """Punctuation becomes a space, or nothing if it touches one, or if there is a comma between digits anywhere.

    Full stops vanish unless a digit follows, but no more than 32 of them: the official code passes a flag as a number.
    """
    thousands = re.search(r'\d,\d', answer) is not None
    text = answer
    for mark in PUNCTUATION:
        alone = f'{mark} ' in answer or f' {mark}' in answer
        text = text.replace(mark, '' if alone or thousands else ' ')
    return re.sub(r'\.(?!\d)', '', text, count=32)


def normal_words(answer: str) -> str:
    """In lower case, with digits for numbers up to ten, without articles, and with apostrophes in contractions."""
    words = [NUMBERS.get(word, word) for word in answer.lower().split()]
    return ' '.join(SPELLINGS.get(word, word) for word in words if word not in ARTICLES)
