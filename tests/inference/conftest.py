"""A tiny model with its tokenizer, ready for use."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.model.flamingo import Flamingo
from tests.tiny_run import QUICKLY


@pytest.fixture(scope='session')
def pretrained(config, tokenizer) -> Pretrained:
    lm = dataclasses.replace(config.lm, vocab_size=tokenizer.vocab_size, context=128)
    config = dataclasses.replace(config, lm=lm, image_tag=tokenizer.image_tag, extra_tokens=tokenizer.extra_tokens)
    model = Flamingo(config)
    params = nn.meta.unbox(jax.jit(model.init, compiler_options=QUICKLY)(jax.random.key(3)))
    # Larger rows make the distributions of a random model uneven enough that ties and rounding decide nothing.
    params['lm']['embedder']['tokens'] *= 4
    return Pretrained(model, params, tokenizer, 'text', None, {})


@pytest.fixture(scope='session')
def pictures() -> list[np.ndarray]:
    """Six pictures of noise, uint8 [20 16 3]."""
    return list(np.random.default_rng(5).integers(0, 256, (6, 20, 16, 3), np.uint8))
