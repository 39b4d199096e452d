"""An MLP for the Perceiver Resampler: the ablation of the paper's table 3, row (vi), which gives no details of its own.

It maps each feature by itself, so that an image has a media token for each place. LLaVA 1.5's is `projector.py`.
With ffw_multiplier = depth * (2 + that of the layers) it has as many parameters as `depth` layers of a Perceiver with
heads * head_dim = width.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.model.component import check
from flamingo_jax.model.connectors.connector import Connector, ConnectorConfig
from flamingo_jax.model.layers import ACTIVATIONS, FeedForward, Norm


@dataclasses.dataclass(frozen=True)
class MlpConfig(ConnectorConfig):
    """Two linear maps between the ends."""

    kind = 'mlp'
    width: int = 1536
    ffw_multiplier: int = 4
    frames: int = 8  # As of the Perceiver Resampler. The frames of a video are averaged.
    projects: bool = True
    activation: str = 'squared_relu'

    def __post_init__(self):
        check(self, 'resampler.', 'width ffw_multiplier', activation=ACTIVATIONS)

    def module(self, out_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain') -> 'Mlp':
        """See `ConnectorConfig.module`."""
        return Mlp(self, out_width, dtype, kernel)

    def operations(self, r: int, s: int) -> tuple[int | float, int | float]:
        """See `ConnectorConfig.operations`."""
        return 2 * 2 * s * self.width * self.ffw_multiplier * self.width, 0


class Mlp(Connector):
    """Each feature, mapped by itself."""

    def layers(self, latents: None, x: Float[Array, 'b ts d'], t: int) -> Float[Array, 'b s d']:
        """See `Connector.layers`. The mean over the frames."""
        media = _FeedForward(self.config, self.dtype, name='mlp')(x)
        return media.reshape(x.shape[0], t, -1, x.shape[-1]).mean(axis=1)


class _FeedForward(nn.Module):
    """A norm and two linear maps."""

    config: MlpConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, 'b s d']) -> Float[Array, 'b s d']:
        """Maps each feature."""
        c = self.config
        ffw = FeedForward(c.ffw_multiplier * c.width, c.activation, axis='resampler', dtype=self.dtype, name='ffw')
        return ffw(Norm(axis='resampler', dtype=self.dtype, name='norm_features')(features))
