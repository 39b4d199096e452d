"""Which texts and documents are kept: the rules of `rules.py` that look at text."""

import re
from collections.abc import Sequence

from flamingo_jax.building import texts
from flamingo_jax.building.page import Text
from flamingo_jax.building.rules import PageRules

# Ours, after the idea of OBELICS's list (step 14): words of buttons and notices.
SPAM = frozenset(
    'advertisement click comment comments cookie cookies download email facebook follow instagram javascript linkedin '
    'login logout newsletter password pinterest policy privacy register reply rss share shares sign signup subscribe '
    'tumblr tweet twitter unsubscribe whatsapp youtube'.split()
)
ENGLISH = 'en'
Broken = tuple[str, float | None]  # The rule's name, and what it measured.


def broken_by_text(node: Text, language: str, rules: PageRules) -> Broken | None:
    """The first rule that a text breaks. `language` is that of its document."""
    text, words = node.text, texts.number_of_words(node.text)
    least = rules.text_min_words if node.kind == 'text' else rules.heading_min_words
    if texts.has_mark(text):
        return 'text_marks', None
    if words < least:
        return 'text_min_words' if node.kind == 'text' else 'heading_min_words', words
    if rules.text_links and node.links > rules.text_links:
        return 'text_links', node.links
    if rules.text_max_words and words > rules.text_max_words:
        return 'text_max_words', words
    if node.kind != 'text' and words < rules.text_min_words:
        return None if re.search(r'[^\W\d_]', text) else ('text_special_characters', 1.0)
    for rule, value in (
        ('text_character_repetition', texts.character_repetition(text, 10)),
        ('text_word_repetition', texts.word_repetition(text, 5)),
        ('text_special_characters', texts.special_ratio(text)),
    ):
        if getattr(rules, rule) and value > getattr(rules, rule):
            return rule, value
    if rules.text_punctuation and words >= 12 and texts.punctuation_ratio(text) < rules.text_punctuation:
        return 'text_punctuation', texts.punctuation_ratio(text)
    if node.kind == 'text' and (broken := _stop_words(text, language, rules, 'text')):
        return broken
    spam = sum(word in SPAM for word in texts.words(text)) / max(words, 1)
    return ('text_spam_words', spam) if rules.text_spam_words and spam >= rules.text_spam_words else None


def broken_by_document(kept: Sequence[Text], language: str, rules: PageRules) -> Broken | None:
    """The first rule that the texts of a document break together."""
    whole = '\n'.join(node.text for node in kept)
    words = texts.number_of_words(whole)
    if words < rules.document_min_words:
        return 'document_min_words', words
    if rules.document_max_words and words > rules.document_max_words:
        return 'document_max_words', words
    if rules.document_languages and language not in rules.document_languages:
        return 'document_languages', None
    for rule, value in (
        ('document_character_repetition', texts.character_repetition(whole, 10)),
        ('document_word_repetition', texts.word_repetition(whole, 5)),
        ('document_special_characters', texts.special_ratio(whole)),
    ):
        if getattr(rules, rule) and value > getattr(rules, rule):
            return rule, value
    if rules.document_punctuation and texts.punctuation_ratio(whole) < rules.document_punctuation:
        return 'document_punctuation', texts.punctuation_ratio(whole)
    return _stop_words(whole, language, rules, 'document')


def _stop_words(text: str, language: str, rules: PageRules, what: str) -> Broken | None:
    name = f'{what}_stop_words' if language == ENGLISH else f'{what}_stop_words_elsewhere'
    if (
        (least := getattr(rules, name))
        and (ratio := texts.stop_word_ratio(text, language)) is not None
        and ratio < least
    ):
        return name, ratio
    return None
