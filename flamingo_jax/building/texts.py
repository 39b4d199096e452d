"""What can be measured of a text, in any language.

Chinese, Japanese, Thai and the like put no spaces between words. There a word is taken to be two characters, and every
measure of words is one of characters.
"""

import collections
import functools
import re
import unicodedata
from collections.abc import Sequence

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
# The detector takes short texts in one of these for another.
_CONFUSED = ('hi', 'mr', 'ne')
_PUNCTUATION = frozenset('.,;:!?…。、，；：！？।॥۔؟،؛·։՝՜՞።፣፤፥፦፧')


def clean(text: str) -> tuple[str, str]:
    """A text without control characters and repeated spaces, and the control characters that were in it."""
    removed = ''.join(
        c
        for c in text
        if c not in '\t\n\r' and c not in JOINERS and unicodedata.category(c) in ('Cc', 'Cf', 'Cs', 'Co', 'Cn')
    )
    if removed:
        soft = {ord(c): None for c in removed}
        text = text.translate(soft)
    text = re.sub(r'[^\S\n]+', ' ', text)
    return re.sub(r' ?\n\s*', '\n', text).strip(), removed.replace('\xad', '').replace('\ufeff', '').replace(
        '\u200b', ''
    )


def has_mark(text: str) -> bool:
    """Whether a text has something in it that a model may read as the tag of a picture, an end, or a role."""
    return MARKS.search(text) is not None


def words(text: str) -> list[str]:
    """The words, in lower case; in scripts without spaces, the characters."""
    return (_SIGNED_WORD if re.search(_SIGNS, text) else _WORD).findall(text.lower())


def number_of_words(text: str) -> int:
    """How many words a text has. In scripts without spaces, half of its characters."""
    return _number(words(text))


def _number(every: Sequence[str]) -> int:
    return len(every) - sum(1 for word in every if UNSPACED.match(word)) // 2


def special_ratio(text: str) -> float:
    """The share of characters that are neither letters nor marks of letters nor spaces: digits, signs, emoji."""
    if not text:
        return 0.0
    return sum(not (c.isspace() or unicodedata.category(c)[0] in 'LM') for c in text) / len(text)


def punctuation_ratio(text: str) -> float | None:
    """The number of punctuation marks for each word; None in scripts that need none, as Thai."""
    every = words(text)
    if sum(1 for word in every if _FEW_MARKS.match(word)) > len(every) / 2:
        return None
    return sum(c in _PUNCTUATION for c in text) / max(_number(every), 1)


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
    """The share of words that are in the list of the language's frequent words; None if there is no list."""
    listed = _stop_words(language)
    every = words(re.sub(f'[{_POINTS}]', '', text))
    if not listed or not every or is_unspaced(every):
        return None
    return sum(word in listed for word in every) / len(every)


@functools.cache
def _stop_words(language: str) -> frozenset[str]:
    import stopwordsiso  # The extra `build`.

    alike = _CONFUSED if language in _CONFUSED else (language,)
    return frozenset().union(*(stopwordsiso.stopwords(one) for one in alike if stopwordsiso.has_lang(one)))


def language_of(text: str) -> str:
    """The ISO 639-1 code of a text's language, or 'unknown'.

    Japanese and Korean are known by their letters, Chinese by having Han characters alone. What is said to be Chinese
    without one is in a script that the detector does not know.
    """
    from resiliparse.parse.lang import detect_fast  # The extra `build`.

    letters = [c for c in text if c.isalpha()]
    if not letters:
        return 'unknown'
    kana, hangul, han = (
        sum(low <= c <= high for c in letters) / len(letters)
        for low, high in (('\u3040', '\u30ff'), ('\uac00', '\ud7a3'), ('\u4e00', '\u9fff'))
    )
    if kana + han > 0.3:
        return 'ja' if kana > 0.05 else 'zh'
    if hangul > 0.3:
        return 'ko'
    detected, _ = detect_fast(text)
    return 'unknown' if detected == 'zh' and not han else detected


def is_in_another_language(text: str, language: str) -> bool:
    """Whether a text is clearly not in a language: it is in another script, or fits another one better by a tenth."""
    from resiliparse.parse.lang import detect_fast  # The extra `build`.

    if language_of(text) == language:
        return False
    scores = dict(detect_fast(text, n_results=10))
    best = min(scores.values(), default=0)
    return scores.get(language, np.inf) > 1.1 * best
