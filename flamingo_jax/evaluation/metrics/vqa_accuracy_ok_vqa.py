"""VQA accuracy of OK-VQA with stemmed predictions, as OpenFlamingo 2.0.1 computes it (its ok_vqa_utils.py).

OK-VQA 1.1 stems the answers of the annotators (its field `answer`). OpenFlamingo stems predictions likewise: gerunds
lose their ending, plurals too, and a list holds what these rules would get wrong. lmms-eval does not stem; without
stems, use `vqa_accuracy` or `vqa_accuracy_evalai`.

It needs the extra `english`, and NLTK's data (see `english.py`).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

from flamingo_jax.errors import MissingPackageError
from flamingo_jax.evaluation.english import REMEDY, nltk
from flamingo_jax.evaluation.metrics import texts, vqa_accuracy
from flamingo_jax.evaluation.metrics.vqa_accuracy import Entry

# Words that stay as they are, and pairs of a word and its stem, by OK-VQA's own answers.
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


def score(predictions: Mapping[Any, str], references: Mapping[Any, Sequence[Entry]]) -> tuple[float, dict[Any, float]]:
    """The mean accuracy, and that of each question.

    Arguments and errors are those of `vqa_accuracy`; ImportError or FileNotFoundError if NLTK or its data are missing.
    """
    stemmed = {id: stem(answer) for id, answer in zip(references, texts(predictions, references), strict=True)}
    return vqa_accuracy.score(stemmed, references)


@functools.cache
def stem(answer: str) -> str:
    """The stems of an answer's words."""
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
