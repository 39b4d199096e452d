"""Pixel shuffle and one linear map, as in Idefics 3 and SmolVLM (Laurençon et al. 2024).

Squares of `factor` by `factor` neighbouring features become one, whose channels are those of all of them, row by row.
A linear map without a bias takes it to the language model's width.
"""

import dataclasses
import math
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.errors import UserError
from flamingo_jax.model.component import check
from flamingo_jax.model.connectors.connector import ConnectorConfig
from flamingo_jax.model.layers import Linear


@dataclasses.dataclass(frozen=True)
class PixelShuffleConfig(ConnectorConfig):
    """An image has a media token for each square of features. factor: features along a side of a square."""

    kind = 'pixel_shuffle'
    width: ClassVar[int] = 0  # None between trunk and language model.
    frames: ClassVar[int] = 0
    projects: ClassVar[bool] = True
    factor: int = 2

    def __post_init__(self):
        check(self, 'resampler.', 'factor')

    def media_tokens(self, spatial: int) -> int:
        """See `ConnectorConfig.media_tokens`. UserError if the features are no square that the factor divides."""
        grid = math.isqrt(spatial)
        if grid * grid != spatial or grid % self.factor:
            raise UserError(
                f'A pixel shuffle needs a square of features whose side is a multiple of its factor {self.factor}, but '
                f'an image has {spatial} features. Change resampler.factor or image_size.'
            )
        return spatial // self.factor**2

    def module(self, out_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain') -> 'PixelShuffle':
        """See `ConnectorConfig.module`."""
        return PixelShuffle(self, out_width, dtype)

    def operations(self, r: int, s: int) -> tuple[int | float, int | float]:
        """See `ConnectorConfig.operations`. The map is counted with the ends."""
        return 0, 0


class PixelShuffle(nn.Module):
    """Each square of features, mapped by itself."""

    config: PixelShuffleConfig
    out_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, 'b n t s d_v']) -> Float[Array, 'b n r e']:
        """The media tokens of each image, row by row. UserError for an image of several frames."""
        b, n, t, s, d_v = features.shape
        if t > 1:
            raise UserError(
                f'A pixel shuffle takes images of one frame, not {t}. Give the frames of a video as images.'
            )
        f, side = self.config.factor, math.isqrt(s) // self.config.factor
        x = features.astype(self.dtype).reshape(b, n, side, f, side, f, d_v)
        x = x.swapaxes(3, 4).reshape(b, n, side * side, f * f * d_v)
        shape, axes = (f * f * d_v, self.out_width), ('vision_out', 'media')
        return Linear(shape, axes, dtype=self.dtype, name='project')(x)
