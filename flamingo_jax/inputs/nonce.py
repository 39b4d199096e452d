"""Invented words: labels that no model can know beforehand, so that they can only be learnt from the prompt.

Fast-mapping tests and the text on which the small language model is pretrained draw their labels here, from the same
space: an evaluation then asks for words of a familiar shape whose meaning is new each time.
"""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Source(Protocol):
    """Anything that gives uniform floats in [0, 1): `random.Random` and `numpy.random.Generator` both do."""

    def random(self) -> float: ...


ONSETS = 'bdfgklmnprstvz'
VOWELS = 'aeiou'
CODAS = 'klmnrs'


def nonce(rng: Source) -> str:
    """Draws a pronounceable lower-case word of 2 syllables, such as 'bodkim' or 'rastul'.

    A syllable is consonant, vowel, consonant: 420 of them, few enough that each becomes a sub-word of its own in a vocabulary
    trained on such words, and 176,400 words. So two words seldom share a sub-word, and are told apart by their first.
    """
    return ''.join(_pick(letters, rng) for letters in (ONSETS, VOWELS, CODAS) * 2)


def nonces(rng: Source, number: int) -> list[str]:
    """Draws `number` different invented words."""
    words: dict[str, None] = {}
    while len(words) < number:
        words[nonce(rng)] = None
    return list(words)


def _pick(items, rng: Source) -> str:
    return items[int(rng.random() * len(items))]
