"""A visual prefix with a norm and a gate, which are ours: a new model then begins as its language model does.

It is here to be measured beside the paper's bridge. `prefix.py` is the one that published models have.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.model.bridges.prefix import Prefix, PrefixConfig
from flamingo_jax.model.language_model import LanguageModelConfig
from flamingo_jax.model.layers import Norm, times


@dataclasses.dataclass(frozen=True)
class GatedPrefixConfig(PrefixConfig):
    """The size of a soft word is tanh(alpha)."""

    kind = 'gated_prefix'
    initial_alpha: float = 0.0
    norm_eps: float = 1e-5

    def module(
        self, lm: LanguageModelConfig, media_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain'
    ) -> 'GatedPrefix':
        """See `BridgeConfig.module`."""
        return GatedPrefix(self, dtype)


class GatedPrefix(Prefix):
    """Puts the media tokens into the embedded text, normed and gated."""

    config: GatedPrefixConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Creates the parameters: a norm, and the size of a soft word, tanh(alpha)."""
        self.norm_media = Norm('rms', self.config.norm_eps, dtype=self.dtype)
        alpha = nn.with_logical_partitioning(nn.initializers.constant(self.config.initial_alpha), ())
        self.alpha_xattn = self.param('alpha_xattn', alpha, ())

    def words(self, media: Float[Array, 'b m d']) -> Float[Array, 'b m d']:
        """The soft words."""
        return times(self.norm_media(media), jnp.tanh(self.alpha_xattn))
