"""Invented words: labels that no model can know beforehand, so that they can only be learnt from the prompt.

Fast-mapping tests and the text on which the small language model is pretrained draw their labels here, from the same
space: an evaluation then asks for words of a familiar shape whose meaning is new each time.
"""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Source(Protocol):
    """Anything that gives uniform floats in [0, 1): `random.Random` and `numpy.random.Generator` both do."""

    def random(self) -> float: ...


ONSETS = 'b d f g h j k l m n p r s t v w y z br kl pl sh st tr'.split()
VOWELS = 'aeiou'
CODAS = ['', *'bdgklmnprstx']
# Short words stay few sub-words long, so three syllables are the rarer case.
THREE_SYLLABLES = 0.25


def nonce(rng: Source) -> str:
    """Draws a pronounceable lower-case word of 2 or 3 syllables, such as 'bodex' or 'trusavi'.

    Only the last syllable may close with a consonant, so each word has one reading: the 187,200 words of two syllables
    and the 22,464,000 of three are all different. A few of them happen to be words of some language ('banana').
    """
    syllables = 3 if rng.random() < THREE_SYLLABLES else 2
    word = ''.join(_pick(ONSETS, rng) + _pick(VOWELS, rng) for _ in range(syllables))
    return word + _pick(CODAS, rng)


def nonces(rng: Source, number: int) -> list[str]:
    """Draws `number` different invented words."""
    words: dict[str, None] = {}
    while len(words) < number:
        words[nonce(rng)] = None
    return list(words)


def _pick(items, rng: Source) -> str:
    return items[int(rng.random() * len(items))]
