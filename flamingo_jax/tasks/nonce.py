"""Invented names: labels that no model can know beforehand, so that they can only be learnt from the prompt.

Few-shot tests and the pretraining text of the small language model draw their labels here. So the words of an
evaluation have a familiar form and a new meaning.
"""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Uniform(Protocol):
    """A source of uniform floats in [0, 1), such as `random.Random` or `numpy.random.Generator`."""

    def random(self) -> float: ...


ONSETS = 'bdgklmnprtvwyz'
VOWELS = 'aeiou'
CODAS = 'fvxz'


def nonce(rng: Uniform) -> str:
    """Draws a pronounceable lower-case name of two syllables, such as 'dax kuv': each is consonant, vowel, consonant.

    There are 280 syllables, few of them real words, and 78,400 names. The number is small so that each syllable
    becomes one piece of a small vocabulary trained on them. A name has two syllables because a model first learns to
    copy within a name (`kuv` follows `dax` again) and then copies from key to label in the same way.
    """
    return ' '.join(''.join(_pick(letters, rng) for letters in (ONSETS, VOWELS, CODAS)) for _ in range(2))


def nonces(rng: Uniform, number: int) -> list[str]:
    """Draws `number` different invented names."""
    words: dict[str, None] = {}
    while len(words) < number:
        words[nonce(rng)] = None
    return list(words)


def _pick(items, rng: Uniform) -> str:
    return items[int(rng.random() * len(items))]
