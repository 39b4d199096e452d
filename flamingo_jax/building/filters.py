"""Which texts and documents are kept: the rules of `rules.py` that look at text."""

import collections
import re
from collections.abc import Sequence
from typing import NamedTuple

from flamingo_jax.building import texts
from flamingo_jax.building.formulas import without_formulas
from flamingo_jax.building.page import AS_IT_IS, Text
from flamingo_jax.building.rules import PageRules

# Ours, after the idea of OBELICS's list (step 14): words of buttons and notices.
SPAM = frozenset(
    'advertisement click comment comments cookie cookies download email facebook follow instagram javascript linkedin '
    'login logout newsletter password pinterest policy privacy register reply rss share shares sign signup subscribe '
    'tumblr tweet twitter unsubscribe whatsapp youtube'.split()
)
ENGLISH = 'en'
NUMBERING = re.compile(r'^[\d.]+\s*')  # Of a heading: '14.7.3. '.
LONG = 12  # Words from which a text has punctuation and frequent words (OBELICS, for punctuation).
Broken = tuple[str, int | float | None]  # The rule's name, and what it measured.


class Language(NamedTuple):
    """The language of a document."""

    code: str  # ISO 639-1, or 'unknown'.
    mixed: float  # The share of long texts in others.
    has_frequent_words: bool  # Whether it is known by its frequent words, and no other language is nearly as likely.


def broken_by_text(node: Text, language: Language, rules: PageRules) -> Broken | None:
    """The first rule that a text breaks. `language` is that of its document."""
    text, words = node.text, texts.number_of_words(node.text)
    least = rules.text_min_words if node.kind == 'text' else rules.heading_min_words
    if texts.has_mark(text):
        return 'text_marks', None
    if rules.text_max_words and words > rules.text_max_words:
        return 'text_max_words', words
    if node.kind in AS_IT_IS:
        return None
    if rules.text_formulas:
        text = without_formulas(text)
    if words < least:
        return 'text_min_words' if node.kind == 'text' else 'heading_min_words', words
    if rules.text_links and node.links > rules.text_links:
        return 'text_links', node.links
    for rule, value, most in (
        *((rule, value, getattr(rules, rule)) for rule, value in _repetition(text, 'text', rules)),
        (
            'text_special_characters' if node.kind == 'text' else 'heading_special_characters',
            texts.special_ratio(text if node.kind == 'text' else NUMBERING.sub('', text)),
            rules.text_special_characters if node.kind == 'text' else rules.heading_special_characters,
        ),
    ):
        if most and value > most:
            return rule, value
    if words >= LONG and node.kind != 'heading':
        marks = texts.punctuation_ratio(text)
        if marks is not None and marks < rules.text_punctuation:
            return 'text_punctuation', marks
        if broken := _stop_words([text], language, rules, 'text'):
            return broken
    spam = [word for word in texts.words(text) if word in SPAM]
    if rules.text_spam_words and len(spam) > 1 and len(spam) >= rules.text_spam_words * words:
        return 'text_spam_words', len(spam) / words
    return None


def language_of_blocks(blocks: Sequence[Text]) -> Language:
    """The language of most long texts. Short texts tell little: they are asked if there are no others."""
    blocks = [block for block in blocks if block.kind not in AS_IT_IS]
    long = [block.text for block in blocks if block.links <= 0.5 and texts.number_of_words(block.text) >= LONG]
    long = long or ['\n'.join(block.text for block in blocks)]
    by_language = collections.defaultdict(list)
    for text in long:
        by_language[texts.language_of(text)].append(text)
    lengths = {language: sum(map(len, some)) for language, some in by_language.items()}
    code = max(lengths, key=lambda language: (lengths[language], language))
    others = sum(len(text) for text in long if texts.is_in_another_language(text, code))
    has_frequent_words = code in texts.FREQUENT and texts.is_clear('\n'.join(by_language[code]))
    return Language(code, others / max(sum(lengths.values()), 1), has_frequent_words)


def broken_by_document(kept: Sequence[Text], language: Language, rules: PageRules) -> Broken | None:
    """The first rule that the texts of a document break together."""
    whole = '\n'.join(node.text for node in kept)
    words = texts.number_of_words(whole)
    prose = [node.text for node in kept if node.kind not in AS_IT_IS]
    if rules.text_formulas:
        prose = [without_formulas(text) for text in prose]
    if words < rules.document_min_words:
        return 'document_min_words', words
    if rules.document_max_words and words > rules.document_max_words:
        return 'document_max_words', words
    if rules.document_languages and language.code not in rules.document_languages:
        return 'document_languages', None
    if rules.document_mixed_languages and language.mixed > rules.document_mixed_languages:
        return 'document_mixed_languages', language.mixed
    whole = '\n'.join(prose)
    for rule, value in (
        *_repetition(whole, 'document', rules),
        ('document_special_characters', texts.special_ratio(whole)),
    ):
        if getattr(rules, rule) and value > getattr(rules, rule):
            return rule, value
    marks = texts.punctuation_ratio(whole)
    if marks is not None and marks < rules.document_punctuation:
        return 'document_punctuation', marks
    return _stop_words(prose, language, rules, 'document')


def _repetition(text: str, what: str, rules: PageRules) -> list[tuple[str, float]]:
    """The two rules of repetition, with what they measure."""
    if len(text) < rules.repetition_from:
        return [(f'{what}_character_repetition', float(texts.is_one_phrase(text)))]
    characters, words = texts.character_repetition(text, 10), texts.word_repetition(text, 5)
    return [(f'{what}_character_repetition', characters), (f'{what}_word_repetition', words)]


def _stop_words(parts: Sequence[str], language: Language, rules: PageRules, what: str) -> Broken | None:
    """The rule of frequent words. Each part may be in a language of its own: a page may be translated in part."""
    if not language.has_frequent_words:
        return None
    name = f'{what}_stop_words' if language.code == ENGLISH else f'{what}_stop_words_elsewhere'
    found, every = 0.0, 0
    for part in parts:
        own = (language.code, texts.language_of(part))
        ratios = [ratio for one in own if (ratio := texts.stop_word_ratio(part, one)) is not None]
        if len(ratios) < len(own) and texts.is_in_another_language(part, language.code):
            continue  # In one that is not known by its frequent words.
        if ratios:
            words = len(texts.words(part))
            found, every = found + max(ratios) * words, every + words
    return (name, found / every) if every and found < getattr(rules, name) * every else None
