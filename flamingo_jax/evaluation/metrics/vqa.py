"""VQA accuracy (Antol et al. 2015), as papers report it: how many annotators gave the answer, over 3 and at most 1.

The official mean leaves out each of the 10 annotators in turn. So an answer that 1, 2 or 3 of them gave scores .3, .6
or .9, and one that 4 gave scores 1: it is not min(1, n / 3).

`score` normalises both sides always, and leaves an annotator out by his place: OpenFlamingo 2.0.1 and lmms-eval on
VQAv2, whose entries have an `answer_id`. Several other versions of the official code circulate: `VARIANTS`.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from flamingo_jax.errors import MissingPackageError
from flamingo_jax.evaluation.english import REMEDY, nltk
from flamingo_jax.evaluation.metrics import Metric, Scored, refuse_without_references, texts

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
# Of OK-VQA's own answers: words that stay as they are, and pairs of a word and its stem.
UNCHANGED = 'police las vegas yes are married tennis christmas'.split()
STEMS: dict[str, str] = dict(
    cast(tuple[str, str], pair.split())
    for pair in """
    jeans jean, hell's hell, domino's domino, morning morn, clothes cloth, riding ride, leaves leaf, dangerous
    danger, clothing cloth, texting text, kiting kite, firefighters firefight, ties tie, teething teeth, gloves
    glove, dining dine, directions direct, waves wave, drives drive, pudding pud, coding code, plating plate,
    quantas quanta, hornes horn, graves grave, mating mate, paned pane, alertness alert, sunbathing sunbath, tenning
    ten, wetness wet, urinating urine, sickness sick, braves brave, firefighting firefight, lenses lens, reflections
    reflect, backpackers backpack, eatting eat, designers design, curiousity curious, playfulness play, blindness
    blind, hawke hawk, tomatoe tomato, rodeoing rodeo, brightness bright, circuses circus, skateboarders skateboard,
    staring stare, electronics electron, electicity elect, mountainous mountain, socializing social, hamburgers
    hamburg, caves cave, transitions transit, wading wade, creame cream, toileting toilet, sautee saute, buildings
    build, belongings belong, stockings stock, walle wall, cumulis cumuli, travelers travel, conducter conduct,
    browsing brows, pooping poop, haircutting haircut, toppings top, hearding heard, sunblocker sunblock, bases
    base, markings mark, mopeds mope, kindergartener kindergarten, pies pie, scrapbooking scrapbook, couponing
    coupon, meetings meet, elevators elev, lowes low, men's men, childrens children, shelves shelve, paintings
    paint, raines rain, paring pare, expressions express, routes rout, pease peas, vastness vast, awning awn, boy's
    boy, drunkenness drunken, teasing teas, conferences confer, ripeness ripe, suspenders suspend, earnings earn,
    reporters report, kid's kid, containers contain, corgie corgi, porche porch, microwaves microwave, batter's
    batter, sadness sad, apartments apart, oxygenize oxygen, striping stripe, purring pure, professionals
    profession, piping pipe, farmer's farmer, potatoe potato, emirates emir, womens women, veteran's veteran,
    wilderness wilder, propellers propel, alpes alp, charioteering chariot, swining swine, illness ill, crepte
    crept, adhesives adhesive, regent's regent, decorations decor, rabbies rabbi, overseas oversea, travellers
    travel, casings case, smugness smug, doves dove, nationals nation, mustange mustang, ringe ring, gondoliere
    gondolier, vacationing vacate, reminders remind, baldness bald, settings set, glaced glace, coniferous conifer,
    revelations revel, personals person, daughter's daughter, badness bad, projections project, polarizing polar,
    vandalizers vandal, minerals miner, protesters protest, controllers control, weddings wed, sometimes sometime,
    earing ear
    """.split(',')
) | dict(zip(UNCHANGED, UNCHANGED, strict=True))


def score(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[Entry]]) -> Scored:
    """The mean accuracy, and that of each question, between 0 and 1.

    Args:
      predictions: id -> an answer.
      references: id -> the answers of the annotators, usually 10, as texts or as the annotation file has them.

    Raises:
      ValueError: a prediction is not a text, or a question has no answers.
    """
    return _by_place(predictions, references, normal)


def evalai(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[Entry]]) -> Scored:
    """mmf and lmms-eval on OK-VQA, TextVQA and VizWiz: commas and question marks vanish first, `'s` is split off."""

    def of_evalai(answer: str) -> str:
        return normal(answer.lower().replace(',', '').replace('?', '').replace("'s", " 's").strip())

    return _by_place(predictions, references, of_evalai)


def ok_vqa(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[Entry]]) -> Scored:
    """OpenFlamingo 2.0.1 on OK-VQA: the prediction is stemmed, as that set's answers are.

    It needs the extra `english`, and NLTK's data (see `english.py`): ImportError or FileNotFoundError without.
    """
    stemmed = {id: stem(answer) for id, answer in zip(references, texts(predictions, references), strict=True)}
    return score(stemmed, references)


def by_value(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[Entry]]) -> Scored:
    """OpenFlamingo 2.0.1 on any file: an annotator is left out with all whose entry equals his.

    In files without `answer_id` (VizWiz), annotators who agree, and are equally sure, are lost together, and an answer
    that all gave scores 0. A mere text counts as an entry with an id of its own.
    """
    return _by_value(predictions, references, lambda answer, given: (normal(answer), [normal(g) for g in given]))


def official_2021(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[Entry]]) -> Scored:
    """GT-Vision-Lab/VQA since March 2021: both sides are normalised, but neither if all annotators agree."""

    def compared(answer: str, given: Sequence[str]) -> tuple[str, list[str]]:
        if len(set(given)) == 1:
            return answer, list(given)
        return normal(answer), [normal(other) for other in given]

    return _by_value(predictions, references, compared)


def official_2016(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[Entry]]) -> Scored:
    """The same from 2016 on: annotators' answers only lose their punctuation, and keep it if all agree.

    So an annotator's `two` never matches, as the prediction `two` is compared as `2`.
    """

    def compared(answer: str, given: Sequence[str]) -> tuple[str, list[str]]:
        return normal(answer), list(given) if len(set(given)) == 1 else [without_punctuation(other) for other in given]

    return _by_value(predictions, references, compared, strip=False)


# Arguments and errors of all are those of `score`.
VARIANTS: dict[str, Metric] = dict(
    vqa_2016=official_2016, vqa_2021=official_2021, vqa_by_value=by_value, vqa_evalai=evalai, vqa_ok_vqa=ok_vqa
)


def _by_place(
    predictions: Mapping[Any, str], references: Mapping[Any, Sequence[Entry]], normal: Callable[[str], str]
) -> Scored:
    """`normal` gives answers the form in which they are compared."""
    refuse_without_references(references)
    each = {}
    for id, answer in zip(references, texts(predictions, references), strict=True):
        answer, *given = (normal(stripped(text)) for text in (answer, *map(answer_of, references[id])))
        agree = [other == answer for other in given]
        each[id] = float(np.mean([min(1.0, (sum(agree) - own) / 3) for own in agree]))
    return float(np.mean(list(each.values()))), each


def _by_value(
    predictions: Mapping[Any, str],
    references: Mapping[Any, Sequence[Entry]],
    compared: Callable[[str, Sequence[str]], tuple[str, list[str]]],
    strip: bool = True,
) -> Scored:
    """Leaves out entries that are equal together.

    compared: gives a prediction and its annotators' answers the form in which they are compared.
    strip: whether answers of annotators lose white space around them.
    """
    refuse_without_references(references)
    each = {}
    for id, answer in zip(references, texts(predictions, references), strict=True):
        entries = references[id]
        given = [answer_of(entry) for entry in entries]
        answer, given = compared(stripped(answer), [stripped(other) for other in given] if strip else given)
        whole = [
            (i, other) if isinstance(entry, str) else dict(entry) | dict(answer=other)
            for i, (entry, other) in enumerate(zip(entries, given, strict=True))
        ]
        others = [[o == answer for o, w in zip(given, whole, strict=True) if w != own] for own in whole]
        each[id] = float(np.mean([min(1.0, sum(agree) / 3) for agree in others]))
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


@functools.cache
def stem(answer: str) -> str:
    """The stems of an answer's words by OpenFlamingo's ok_vqa_utils.py: gerunds and plurals lose their ending."""
    try:
        import inflection  # pyright: ignore[reportMissingImports]  # An extra.
    except ImportError as error:
        raise MissingPackageError(
            f'This metric needs inflection, NLTK and its data. Fetch them once: {REMEDY}'
        ) from error
    words = []
    for word, tag in nltk().pos_tag(nltk().word_tokenize(answer)):
        if word in STEMS:
            word = STEMS[word]
        elif word.endswith('ing'):
            word = nltk().stem.WordNetLemmatizer().lemmatize(word, 'v')
        elif tag in ('NNS', 'NNPS'):
            word = inflection.singularize(word)
        words.append(word)
    return ' '.join(words)
