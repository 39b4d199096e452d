"""Noise on the text, as a language model's pretraining asks for it."""

import jax
import numpy as np
import pytest

from flamingo_jax.training.losses.noise import NoiseConfig, text_noise


@pytest.mark.parametrize('text, vocabulary', [(0.0, 1.0), (0.3, 0.0)])
def test_a_repeated_token_has_the_same_noise_only_where_it_is_of_the_vocabulary(model, text, vocabulary):
    v, d = model.config.lm.vocab_size, 256
    embeddings = jax.numpy.asarray(0.5 / d**0.5 * np.random.default_rng(0).standard_normal((v, d), np.float32))
    tokens = jax.numpy.tile(jax.numpy.array([5, 9, 5]), (200, 1))
    config = NoiseConfig(text=text, vocabulary=vocabulary)
    noise = np.asarray(text_noise(embeddings, tokens, jax.random.key(0), config, model))
    noisy = np.abs(noise).max((1, 2)) > 0
    assert noisy.mean() == pytest.approx(0.5, abs=0.1)
    noise = noise[noisy]
    assert noise.std() == pytest.approx(0.5 * (text + vocabulary), rel=0.05)  # The embedded text deviates by 0.5.
    assert np.array_equal(noise[:, 0], noise[:, 2]) == bool(vocabulary)
    assert not np.array_equal(noise[:, 0], noise[:, 1])
    assert len(np.unique(noise[:, 0, 0])) > 0.7 * len(noise)  # Each row its own, by 304 shifts.
