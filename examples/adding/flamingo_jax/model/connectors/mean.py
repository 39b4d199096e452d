"""The mean of all features, as the one media token."""

import dataclasses

import jax.numpy as jnp

from flamingo_jax.model.connectors.connector import Connector, ConnectorConfig


@dataclasses.dataclass(frozen=True)
class MeanConfig(ConnectorConfig):
    """One token for an image."""

    kind = 'mean'
    width: int = 16
    frames: int = 8
    projects: bool = True

    def media_tokens(self, spatial):
        return 1

    def module(self, out_width, dtype=jnp.float32, kernel='plain'):
        return Mean(self, out_width, dtype, kernel)

    def operations(self, r, s):
        return 0, 0


class Mean(Connector):
    """[b t*s d] -> [b 1 d]."""

    def layers(self, latents, x, t):
        return x.mean(axis=1, keepdims=True)
