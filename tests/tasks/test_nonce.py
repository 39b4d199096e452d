import random

import numpy as np

from flamingo_jax.tasks.nonce import CODAS, ONSETS, VOWELS, nonce, nonces


def test_names_are_two_syllables_as_two_words():
    rng = random.Random(0)
    for name in (nonce(rng) for _ in range(1000)):
        assert len(name.split(' ')) == 2
        for onset, vowel, coda in name.split(' '):
            assert onset in ONSETS and vowel in VOWELS and coda in CODAS


def test_draws_follow_the_generator_alone():
    assert [nonce(random.Random(3)) for _ in range(2)] == [nonce(random.Random(3))] * 2
    assert nonce(np.random.default_rng(3)) == nonce(np.random.default_rng(3))
    rng = random.Random(4)
    assert len({nonce(rng) for _ in range(1000)}) > 980


def test_nonces_are_different():
    assert len(set(nonces(random.Random(5), 500))) == 500
