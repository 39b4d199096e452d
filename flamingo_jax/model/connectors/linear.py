"""One linear map with a bias from each feature to a media token, as in Llama 3.2 Vision.

A trunk whose images differ in size fills up with features of zeros. They become media tokens of zeros, which
`bridges/mllama_xattn.py` does not show to the text.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.errors import UserError
from flamingo_jax.model.connectors.connector import ConnectorConfig
from flamingo_jax.model.layers import Linear


@dataclasses.dataclass(frozen=True)
class LinearConfig(ConnectorConfig):
    """It has the width of the trunk, and of the language model."""

    kind = 'linear'
    width: ClassVar[int] = 0  # None between them.
    frames: ClassVar[int] = 0
    projects: ClassVar[bool] = True
    bias: bool = True

    def module(self, out_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain') -> 'LinearConnector':
        """See `ConnectorConfig.module`."""
        return LinearConnector(self, out_width, dtype)

    def operations(self, r: int, s: int) -> tuple[int | float, int | float]:
        """See `ConnectorConfig.operations`. The map is counted with the ends."""
        return 0, 0


class LinearConnector(nn.Module):
    """Each feature, mapped by itself."""

    config: LinearConfig
    out_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, 'b n t s d_v']) -> Float[Array, 'b n s e']:
        """The media tokens of each image. UserError for an image of several frames."""
        if features.shape[2] > 1:
            raise UserError(
                f'A linear connector takes images of one frame, not {features.shape[2]}. Give the frames of a video '
                'as images.'
            )
        x = features[:, :, 0].astype(self.dtype)
        shape, axes = (x.shape[-1], self.out_width), ('vision_out', 'media')
        media = Linear(shape, axes, bias=self.config.bias, dtype=self.dtype, name='project')(x)
        return jnp.where((x != 0).any(axis=-1, keepdims=True), media, 0)
