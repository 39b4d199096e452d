"""The mean of the media tokens that a text token sees is added to it."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from flamingo_jax.model.attention import as_array
from flamingo_jax.model.bridges.bridge import Bridge, BridgeConfig


@dataclasses.dataclass(frozen=True)
class AddedConfig(BridgeConfig):
    """Before every second block. The gates begin closed."""

    kind = 'added'
    every: int = 2
    first: int = 0
    acts_on_text = False
    attends = False

    def module(self, lm, media_width, dtype=jnp.float32, kernel='plain'):
        return Added()


class Added(Bridge):
    """y + tanh(alpha) * media."""

    def setup(self):
        self.alpha = self.param('alpha', nn.with_logical_partitioning(nn.initializers.zeros, ()), ())

    def keys_values(self, media):
        return ((media[:, None], media[:, None]),)  # One head; the same as keys and values.

    def __call__(self, y, keys_values, mask):
        media = jnp.concatenate([jnp.repeat(x[:, 0], len(y) // len(x), axis=0) for x, _ in keys_values], axis=1)
        seen = as_array(mask, y.shape[1], media.shape[1]).astype(y.dtype)
        mean = jnp.einsum('blm,bmd->bld', seen, media) / jnp.maximum(seen.sum(axis=-1, keepdims=True), 1)
        return y + jnp.tanh(self.alpha) * mean
