"""What can be measured of a text, in any language.

Chinese, Japanese, Thai and the like put no spaces between words. There a word is taken to be two characters, and every
measure of words is one of characters.
"""

import collections
import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

# Texts that tokenizers or models read as more than text. No document may hold one.
MARKS = re.compile(
    r'<image>|</image>|<EOC>|<PAD>|<fake_token_around_image>|<end_of_utterance>|<\|[a-z_]{3,30}\|>|</?s>|<(?:bos|eos|pad|unk)>'
    r'|<(?:start|end)_of_turn>|\[/?INST\]|END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED'
)
JOINERS = '\u200c\u200d'  # Persian and Indic scripts need them.
# Scripts without spaces: kana, Han, Thai, Lao, Myanmar, Khmer, Tibetan.
UNSPACED = re.compile(
    '[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]'
)
# Of these Thai, Lao, Tibetan, Myanmar and Khmer: spaces part phrases, and marks are few or none.
_FEW_MARKS = re.compile('[\u0e00-\u109f\u1780-\u17ff]')
# Signs within words that are no letters to Python: points of Hebrew and Arabic, which most writers leave out; accents;
# and the vowels of Indic scripts.
_POINTS = '\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670'
_SIGNS = f'[\u0300-\u036f\u0900-\u0963\u0966-\u0dff{_POINTS}{JOINERS}]'


def _word(letter: str) -> re.Pattern[str]:
    letters = rf'(?:(?!{UNSPACED.pattern}){letter})+'
    return re.compile(rf'{UNSPACED.pattern}|{letters}(?:[\'’\-.]{letters})*')


_WORD, _SIGNED_WORD = _word(r'[^\W_]'), _word(rf'(?:[^\W_]|{_SIGNS})')
# The detector's languages by their script. It has no other in these scripts, and all others are in Latin letters, but
# for Chinese, Japanese and Korean. Kurdish is in both.
_OF_SCRIPTS = {
    'ARABIC': 'ar fa ku ps sd ug ur',
    'ARMENIAN': 'hy',
    'BENGALI': 'as bn',
    'CYRILLIC': 'ba be bg ce cv kk ky mk mn ru sr tg tt uk',
    'DEVANAGARI': 'hi mr ne sa',
    'GEORGIAN': 'ka',
    'GREEK': 'el',
    'GUJARATI': 'gu',
    'GURMUKHI': 'pa',
    'HEBREW': 'he yi',
    'KANNADA': 'kn',
    'KHMER': 'km',
    'MALAYALAM': 'ml',
    'MYANMAR': 'my',
    'ORIYA': 'or',
    'SINHALA': 'si',
    'TAMIL': 'ta',
    'TELUGU': 'te',
    'THAANA': 'dv',
    'THAI': 'th',
    'TIBETAN': 'bo',
}
# It takes these for one another. Each has words that the others have not.
_DEVANAGARI = {
    'hi': frozenset('है हैं में और का की के को से नहीं यह ने'.split()),
    'mr': frozenset('आहे आहेत आणि व च्या नाही हे आपल्या किंवा असे करण्यात'.split()),
    'ne': frozenset('छ छन् छैन र वा पनि गर्न लागि भएको गरेको हुने गर्ने'.split()),
}
# Languages that are known by their frequent words, which are at least a seventh of each paragraph of the Universal
# Declaration of Human Rights. Left out are those that attach to a word what others say by a word (Korean, Turkish,
# Finnish, Arabic), and those for which the detector takes many that it does not know (Swahili, Indonesian, Vietnamese).
FREQUENT = frozenset('af bg bn ca cs da de el en es fa fr gl hi hr it lv nl no pl pt ro ru sk sl sv'.split())
_PUNCTUATION = frozenset('.,;:!?…。、，；：！？।॥۔؟،؛·։՝՜՞።፣፤፥፦፧')


def clean(text: str) -> tuple[str, str]:
    """A text without control characters and repeated spaces, and the control characters that were in it.

    A letter with its accents is one character where it can be (NFC), as most texts have it.
    """
    text = unicodedata.normalize('NFC', text)
    removed = _controls(text)
    if removed:
        text = text.translate({ord(c): None for c in removed})
    text = re.sub(r'[^\S\n]+', ' ', text)
    return re.sub(r' ?\n\s*', '\n', text).strip(), removed.replace('\xad', '').replace('\ufeff', '').replace(
        '\u200b', ''
    )


def without_controls(text: str) -> str:
    """A text without control characters, with all of its spaces."""
    return text.translate({ord(c): None for c in _controls(text)})


def _controls(text: str) -> str:
    if text.replace('\n', '').isprintable():  # Most texts, and fast.
        return ''
    return ''.join(
        c
        for c in text
        if c not in '\t\n\r' and c not in JOINERS and unicodedata.category(c) in ('Cc', 'Cf', 'Cs', 'Co', 'Cn')
    )


def has_mark(text: str) -> bool:
    """Whether a text has something in it that a model may read as the tag of an image, an end, or a role."""
    return MARKS.search(text) is not None


def words(text: str) -> list[str]:
    """The words, in lower case; in scripts without spaces, the characters."""
    text = unicodedata.normalize('NFC', text.lower())
    return (_SIGNED_WORD if re.search(_SIGNS, text) else _WORD).findall(text)


def number_of_words(text: str) -> int:
    """How many words a text has. In scripts without spaces, half of its characters."""
    return _number(words(text))


def _number(every: Sequence[str]) -> int:
    unspaced = sum(1 for word in every if len(word) == 1 and UNSPACED.match(word))
    return len(every) - unspaced // 2


def special_ratio(text: str) -> float:
    """The share of characters that are neither letters nor marks of letters nor spaces: digits, signs, emoji."""
    if not text:
        return 0.0
    special = (
        number
        for c, number in collections.Counter(text).items()
        if not (c.isspace() or unicodedata.category(c)[0] in 'LM')
    )
    return sum(special) / len(text)


def punctuation_ratio(text: str) -> float | None:
    """The number of punctuation marks for each word; None in scripts that need none, as Thai."""
    every = words(text)
    if sum(1 for word in every if _FEW_MARKS.match(word)) > len(every) / 2:
        return None
    counts = collections.Counter(text)
    return sum(counts[c] for c in _PUNCTUATION) / max(_number(every), 1)


def character_repetition(text: str, n: int) -> float:
    """How much of a text is its own most frequent sequences of n characters.

    As in ROOTS and OBELICS: of the distinct n-grams, the most frequent ones (as many as the square root of their
    number, but none that occurs once) are counted over all n-grams.
    """
    return _repetition([text[i : i + n] for i in range(len(text) - n + 1)], most_frequent=True)


def word_repetition(text: str, n: int) -> float:
    """The share of sequences of n words that occur more than once (ROOTS, OBELICS)."""
    return _repetition(runs(text, n), most_frequent=False)


def is_one_phrase(text: str) -> bool:
    """Whether a text of four words or more says the same again and again, as 'Fill path, Fill path' in an index."""
    every = words(text)
    n = len(every)
    repeats = any(n % part == 0 and every == every[:part] * (n // part) for part in range(1, n // 2 + 1))
    return repeats and number_of_words(text) >= 4


def runs(text: str, n: int) -> list[tuple[str, ...]]:
    """Every run of n words; in scripts without spaces, of 2n characters."""
    every = words(text)
    if is_unspaced(every):
        n *= 2
    return [tuple(every[i : i + n]) for i in range(len(every) - n + 1)]


def is_unspaced(every: Sequence[str]) -> bool:
    """Whether most words of a text are single characters of a script without spaces."""
    return sum(1 for word in every if UNSPACED.match(word)) > len(every) / 2


def _repetition(grams: list, most_frequent: bool) -> float:
    if not grams:
        return 0.0
    counts = sorted(collections.Counter(grams).values(), reverse=True)
    if most_frequent:
        repeated = sum(counts[: min(int(np.sqrt(len(counts))), sum(count > 1 for count in counts))])
    else:
        repeated = sum(count for count in counts if count > 1)
    return repeated / len(grams)


def stop_word_ratio(text: str, language: str) -> float | None:
    """The share of words that are among the language's frequent words; None if it is not one of `FREQUENT`."""
    every = words(re.sub(f'[{_POINTS}]', '', text))
    if language not in FREQUENT or not every or is_unspaced(every):
        return None
    listed = _stop_words(language)
    return sum(word in listed for word in every) / len(every)


@functools.cache
def _stop_words(language: str) -> frozenset[str]:
    import stopwordsiso  # The extra `build`.

    return frozenset(unicodedata.normalize('NFC', word) for word in stopwordsiso.stopwords(language))


def language_of(text: str) -> str:
    """The ISO 639-1 code of a text's language, or 'unknown'.

    Japanese and Korean are known by their letters, Chinese by having Han characters alone, and Hindi, Marathi and
    Nepali by their frequent words. A language that the detector does not know is taken for one of the same script that
    is like it: see `is_clear`.
    """
    letters = [c for c in text if c.isalpha()]
    if not letters:
        return 'unknown'
    kana, hangul, han = (
        sum(low <= c <= high for c in letters) / len(letters) if max(letters) >= low else 0.0
        for low, high in (('\u3040', '\u30ff'), ('\uac00', '\ud7a3'), ('\u4e00', '\u9fff'))
    )
    if kana + han > 0.3:
        return 'ja' if kana > 0.05 else 'zh'
    if hangul > 0.3:
        return 'ko'
    detected = next((language for language, _ in _ranked(text)), 'unknown')
    if detected in _OF_SCRIPTS['DEVANAGARI'].split():
        counts = {one: sum(word in listed for word in words(text)) for one, listed in _DEVANAGARI.items()}
        best = max(counts, key=lambda one: counts[one])
        return best if counts[best] else detected
    return detected


def is_clear(text: str) -> bool:
    """Whether no second language fits a text nearly as well as the first: each is worse by a twentieth.

    A language that the detector does not know is seldom clearly another. Of the Universal Declaration of Human Rights
    in 440 of those, in documents of 12 paragraphs, the rules of frequent words drop 1.2 %: 52 % without this and
    `FREQUENT`. Of the documents in the languages of `FREQUENT`, 91 % are clear.
    """
    ranks = [rank for _, rank in _ranked(text)[:2]]
    return len(ranks) == 1 or (len(ranks) == 2 and ranks[1] >= 1.05 * ranks[0])


def is_in_another_language(text: str, language: str) -> bool:
    """Whether a text is clearly not in a language: it is in another script, or fits another one better by a tenth."""
    if language_of(text) == language:
        return False
    scores = dict(_ranked(text)[:10])
    best = min(scores.values(), default=0)
    return scores.get(language, np.inf) > 1.1 * best


def _ranked(text: str) -> list[tuple[str, int]]:
    """The languages of a text's script, with how far each is from it; the nearest first."""
    from resiliparse.parse.lang import detect_fast  # The extra `build`.

    scripts: collections.Counter = collections.Counter()
    for letter, number in collections.Counter(text).items():
        scripts[_script(letter)] += number
    scripts.pop('', None)
    script = max(scripts, key=lambda one: scripts[one], default='')
    nearest: Any = detect_fast(text, n_results=len(_languages()))  # With one language, it gives no list.
    return [found for found in nearest if found[0] in _written_in(script)]


@functools.cache
def _script(letter: str) -> str:
    """'LATIN', 'ARABIC' and so on; '' for what is no letter."""
    return unicodedata.name(letter, '?').split()[0] if letter.isalpha() else ''


@functools.cache
def _written_in(script: str) -> frozenset[str]:
    if script == 'LATIN':
        return _languages() - set(' '.join(_OF_SCRIPTS.values()).split()) - {'ja', 'ko', 'zh'} | {'ku'}
    return frozenset(_OF_SCRIPTS.get(script, '').split())


@functools.cache
def _languages() -> frozenset[str]:
    from resiliparse.parse.lang import supported_langs  # The extra `build`.

    return frozenset(supported_langs())
