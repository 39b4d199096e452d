"""An ablation of the Perceiver Resampler, not in the paper: the latents attend to the features once."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.model.attention import weights_of
from flamingo_jax.model.component import check
from flamingo_jax.model.connectors.connector import Connector, ConnectorConfig
from flamingo_jax.model.connectors.perceiver import attended
from flamingo_jax.model.layers import Norm


@dataclasses.dataclass(frozen=True)
class PoolingConfig(ConnectorConfig):
    """One attention between the ends."""

    kind = 'pooling'
    latents: int = 64
    width: int = 1536
    heads: int = 16
    head_dim: int = 96
    frames: int = 8  # As of the Perceiver Resampler.
    projects: bool = True
    qk_norms: bool = False

    def __post_init__(self):
        check(self, 'resampler.', 'latents width heads head_dim')

    def module(self, out_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain') -> 'Pooling':
        """See `ConnectorConfig.module`."""
        return Pooling(self, out_width, dtype, kernel)

    def operations(self, r: int, s: int) -> tuple[int | float, int | float]:
        """See `ConnectorConfig.operations`."""
        width = self.heads * self.head_dim
        return 2 * self.width * 2 * (r + s) * width, 2 * 2 * r * s * width

    def sources(self, captured: dict[str, Any], t: int, s: int) -> Float[Array, 'r {t}*{s}']:
        """See `ConnectorConfig.sources`."""
        (weights,) = weights_of(jax.tree.map(lambda x: x[None], captured['pooling']))
        return weights


class Pooling(Connector):
    """Latents that attend to the features."""

    def layers(self, latents: Float[Array, 'b r d'], x: Float[Array, 'b ts d'], t: int) -> Float[Array, 'b r d']:
        """See `Connector.layers`."""
        return _Attention(self.config, self.dtype, self.kernel, name='pooling')(latents, x)


class _Attention(nn.Module):
    """The one attention."""

    config: PoolingConfig
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    @nn.compact
    def __call__(self, latents: Float[Array, 'b r d'], features: Float[Array, 'b s d']) -> Float[Array, 'b r d']:
        """The attended values, with features alone as keys and without a residual."""
        norm: dict[str, Any] = dict(axis='resampler', dtype=self.dtype)
        latents = Norm(**norm, name='norm_latents')(latents)
        features = Norm(**norm, name='norm_features')(features)
        return attended(self.config, self.dtype, self.kernel, latents=latents, x=features)
