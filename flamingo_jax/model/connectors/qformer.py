"""BLIP-2's connector (Li et al. 2023, section 3.1): queries that attend to one another, then to the features.

In BLIP-2 every second layer has the attention to the features, norms come after the residual, and the layers begin as
BERT's. Here every layer has it, and norms come before, as elsewhere.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.model.attention import weights_of
from flamingo_jax.model.connectors.perceiver import Perceiver, PerceiverConfig, attended, fed
from flamingo_jax.model.layers import Norm


@dataclasses.dataclass(frozen=True)
class QFormerConfig(PerceiverConfig):
    """The fields of the Perceiver Resampler."""

    kind = 'qformer'

    def module(self, out_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain') -> 'QFormer':
        """See `ConnectorConfig.module`."""
        return QFormer(self, out_width, dtype, kernel)

    def operations(self, r: int, s: int) -> tuple[int | float, int | float]:
        """See `ConnectorConfig.operations`."""
        width = self.heads * self.head_dim
        layer = 2 * self.width * (6 * r * width + 2 * s * width + 2 * r * self.ffw_multiplier * self.width)
        return layer * self.depth, self.depth * 2 * 2 * r * (s + r) * width

    def sources(self, captured: dict[str, Any], t: int, s: int) -> Float[Array, 'r {t}*{s}']:
        """See `ConnectorConfig.sources`."""
        drawn, layers = jnp.zeros((self.latents, t * s)), captured['layers']
        both = weights_of(layers['self_attention']), weights_of(layers['cross_attention'])
        for of_latents, of_features in zip(*both, strict=True):
            drawn = (drawn + of_latents @ drawn) / 2
            drawn = (drawn + of_features) / 2
        return drawn


class QFormerLayer(nn.Module):
    """Latents attend to one another, then to the features, then a feed-forward; all residual."""

    config: QFormerConfig
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    @nn.compact
    def __call__(self, latents: Float[Array, 'b r d'], features: Float[Array, 'b s d']) -> Float[Array, 'b r d']:
        """One layer."""
        c = self.config
        norm: dict[str, Any] = dict(axis='resampler', dtype=self.dtype)
        normed = Norm(**norm, name='norm_self')(latents)
        latents = latents + _Attention(c, self.dtype, self.kernel, name='self_attention')(normed, normed)
        normed = Norm(**norm, name='norm_latents')(latents)
        features = Norm(**norm, name='norm_features')(features)
        latents = latents + _Attention(c, self.dtype, self.kernel, name='cross_attention')(normed, features)
        return fed(c, self.dtype, latents)


class _Attention(nn.Module):
    """One of a layer's two attentions."""

    config: QFormerConfig
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    @nn.compact
    def __call__(self, latents: Float[Array, 'b r d'], features: Float[Array, 'b s d']) -> Float[Array, 'b r d']:
        """The attended values; both arguments are normed already."""
        return attended(self.config, self.dtype, self.kernel, latents=latents, x=features)


class QFormer(Perceiver):
    """Queries, layer after layer."""

    layer = QFormerLayer
