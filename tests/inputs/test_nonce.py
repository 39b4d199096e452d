import random

import numpy as np

from flamingo_jax.inputs.nonce import CODAS, ONSETS, VOWELS, nonce, nonces


def test_words_are_two_syllables_of_lower_case_letters():
    rng = random.Random(0)
    for word in (nonce(rng) for _ in range(1000)):
        assert len(word) == 6
        for place, letter in enumerate(word):
            assert letter in (ONSETS, VOWELS, CODAS)[place % 3]


def test_space_is_large():
    assert (len(set(ONSETS)) * len(set(VOWELS)) * len(set(CODAS))) ** 2 >= 100_000


def test_draws_follow_the_generator_alone():
    assert [nonce(random.Random(3)) for _ in range(2)] == [nonce(random.Random(3))] * 2
    assert nonce(np.random.default_rng(3)) == nonce(np.random.default_rng(3))
    rng = random.Random(4)
    assert len({nonce(rng) for _ in range(1000)}) > 980


def test_nonces_are_different():
    assert len(set(nonces(random.Random(5), 500))) == 500
