"""The Perceiver Resampler (paper section 2.1, appendix A.1.1, figure 5): any number of visual features -> R latents.

Where the paper gives no detail, this follows OpenFlamingo: separate layer norms for features and latents, linear maps
without biases, a final layer norm. Two linear maps are our reading: one from features to the resampler's width before
the layers (which gives the paper's 194M parameters), and one from the latents to the language model's width after
them. The resamplers of OpenFlamingo and IDEFICS have neither (`projects=False`), and no time embeddings.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.model.attention import attend, weights_of
from flamingo_jax.model.component import check
from flamingo_jax.model.connectors.connector import Connector, ConnectorConfig
from flamingo_jax.model.layers import ACTIVATIONS, FeedForward, Linear, Norm, constrain, scan_layers


@dataclasses.dataclass(frozen=True)
class PerceiverConfig(ConnectorConfig):
    """The paper has 6 layers, width 1536, 16 heads, 64 latents at every size.

    OpenFlamingo and IDEFICS differ from the paper in `frames` and in the fields from `projects` on.
    """

    kind = 'perceiver'
    latents: int = 64
    width: int = 1536
    depth: int = 6
    heads: int = 16
    head_dim: int = 96  # Paper v2; v1 says 128, which gives the printed 194M parameters.
    ffw_multiplier: int = 4
    frames: int = 8  # Number of time embeddings; other numbers of frames interpolate. 0: none, frames have no order.
    projects: bool = True  # Maps to its own width before, to the LM's after. False keeps the trunk's width.
    activation: str = 'squared_relu'
    qk_norms: bool = False  # Whether each head's queries and keys have layer norms.

    def __post_init__(self):
        check(self, 'resampler.', 'latents width depth heads head_dim ffw_multiplier', activation=ACTIVATIONS)

    def module(self, out_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain') -> 'Perceiver':
        """See `ConnectorConfig.module`."""
        return Perceiver(self, out_width, dtype, kernel)

    def operations(self, r: int, s: int) -> tuple[int | float, int | float]:
        """See `ConnectorConfig.operations`."""
        width = self.heads * self.head_dim
        layer = 2 * self.width * (2 * r * width + 2 * (s + r) * width + 2 * r * self.ffw_multiplier * self.width)
        return layer * self.depth, self.depth * 2 * 2 * r * (s + r) * width

    def sources(self, captured: dict[str, Any], t: int, s: int) -> Float[Array, 'r {t}*{s}']:
        """See `ConnectorConfig.sources`. What a latent took from latents is followed back to their own sources."""
        drawn = jnp.zeros((self.latents, t * s))
        for weights in weights_of(captured['layers']):
            drawn = (drawn + weights[:, : t * s] + weights[:, t * s :] @ drawn) / 2
        return drawn


class PerceiverLayer(nn.Module):
    """Latents attend to features and latents, then a feed-forward; both residual."""

    config: PerceiverConfig
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    @nn.compact
    def __call__(self, latents: Float[Array, 'b r d'], features: Float[Array, 'b s d']) -> Float[Array, 'b r d']:
        """One layer; the keys and values come from the features and the latents, concatenated (figure 5)."""
        c = self.config
        norm: dict[str, Any] = dict(axis='resampler', dtype=self.dtype)
        normed_latents = Norm(**norm, name='norm_latents')(latents)
        normed_features = Norm(**norm, name='norm_features')(features)
        x = jnp.concatenate([normed_features, normed_latents], axis=1)
        latents = latents + attended(c, self.dtype, self.kernel, latents=normed_latents, x=x)
        return fed(c, self.dtype, latents)


class Perceiver(Connector):
    """Latents that attend to the features, layer after layer."""

    layer: ClassVar[type[nn.Module]] = PerceiverLayer

    def layers(self, latents: Float[Array, 'b r d'], x: Float[Array, 'b ts d'], t: int) -> Float[Array, 'b r d']:
        """See `Connector.layers`."""
        layer = self.layer(self.config, self.dtype, self.kernel, name='layers')
        return scan_layers(layer, self.config.depth, latents, x)


def attended(
    c: ConnectorConfig, dtype: DTypeLike, kernel: str, latents: Float[Array, 'b r d'], x: Float[Array, 'b s d']
) -> Float[Array, 'b r d']:
    """The latents' attention to x, both normed already. Its maps belong to the compact module that calls it."""
    shape, axes = (c.width, c.heads, c.head_dim), ('resampler', 'resampler_heads', 'head_dim')
    q, k, v = (
        constrain(Linear(shape, axes, dtype=dtype, name=name)(inputs), 'batch', None, 'resampler_heads', None)
        for name, inputs in (('query', latents), ('key', x), ('value', x))
    )
    if c.qk_norms:
        head: dict[str, Any] = dict(axis='head_dim', dtype=dtype)
        q, k = Norm(**head, name='norm_query')(q), Norm(**head, name='norm_key')(k)
    k, v = (y.swapaxes(1, 2) for y in (k, v))
    out = Linear(shape[1:] + shape[:1], axes[1:] + axes[:1], contracted=2, dtype=dtype, name='out')
    return out(attend(q, k, v, kernel=kernel, axes=('batch', 'resampler_heads')))


def fed(c: ConnectorConfig, dtype: DTypeLike, latents: Float[Array, 'b r d']) -> Float[Array, 'b r d']:
    """The latents with their feed-forward added, which belongs to the compact module that calls it."""
    latents = constrain(latents, 'batch', None, 'resampler')
    ffw = FeedForward(c.ffw_multiplier * c.width, c.activation, axis='resampler', dtype=dtype, name='ffw')
    return latents + ffw(Norm(axis='resampler', dtype=dtype, name='norm_ffw')(latents))
