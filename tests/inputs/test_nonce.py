import random

import numpy as np

from flamingo_jax.inputs.nonce import CODAS, ONSETS, VOWELS, nonce, nonces


def test_words_are_pronounceable_lower_case_of_two_or_three_syllables():
    rng = random.Random(0)
    for word in (nonce(rng) for _ in range(5000)):
        assert word.isascii() and word.isalpha() and word.islower()
        assert sum(letter in VOWELS for letter in word) in (2, 3)


def test_space_is_large_and_every_word_has_one_reading():
    syllables = [onset + vowel for onset in ONSETS for vowel in VOWELS]
    words = [first + second + coda for first in syllables for second in syllables for coda in CODAS]
    assert len(words) >= 100_000
    assert len(set(words)) == len(words)


def test_draws_follow_the_generator_alone():
    assert [nonce(random.Random(3)) for _ in range(2)] == [nonce(random.Random(3))] * 2
    assert nonce(np.random.default_rng(3)) == nonce(np.random.default_rng(3))
    rng = random.Random(4)
    assert len({nonce(rng) for _ in range(1000)}) > 980


def test_nonces_are_different():
    assert len(set(nonces(random.Random(5), 500))) == 500
