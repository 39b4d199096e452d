"""Invented names: labels that no model can know beforehand, so that they can only be learnt from the prompt.

Fast-mapping tests and the text on which the small language model is pretrained draw their labels here, from the same
space: an evaluation then asks for words of a familiar shape whose meaning is new each time.
"""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Source(Protocol):
    """Anything that gives uniform floats in [0, 1): `random.Random` and `numpy.random.Generator` both do."""

    def random(self) -> float: ...


ONSETS = 'bdgklmnprtvwyz'
VOWELS = 'aeiou'
CODAS = 'fvxz'


def nonce(rng: Source) -> str:
    """Draws a pronounceable lower-case name of two syllables, such as 'dax kuv': each is consonant, vowel, consonant.

    There are 280 syllables, of which few are words of any language, and 78,400 names. So few, and as words, because each then
    becomes one piece of a small vocabulary that was trained on them; and two, because a model finds out how to copy within
    a name (`kuv` follows `dax` as it did before) and then copies from key to label by the same means.
    """
    return ' '.join(''.join(_pick(letters, rng) for letters in (ONSETS, VOWELS, CODAS)) for _ in range(2))


def nonces(rng: Source, number: int) -> list[str]:
    """Draws `number` different invented names."""
    words: dict[str, None] = {}
    while len(words) < number:
        words[nonce(rng)] = None
    return list(words)


def _pick(items, rng: Source) -> str:
    return items[int(rng.random() * len(items))]
