"""The vision encoder: a published trunk, then a fixed standardisation of its output channels.

The channels of an ImageNet trunk differ in scale by orders of magnitude, and a small resampler learns faster from
standardised ones. Mean and deviation are part of the `vision` tree: `python -m flamingo_jax.convert` measures them
once on a data set (0 and 1 leave the trunk's output unchanged). They have no gradient, like the batch statistics of an
EfficientNet. The paper does not standardise channels: for its NFNet leave 0 and 1.

The trunk may keep its own classifier. What it answers is then the last place, which the channels do not concern.
"""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from flamingo_jax.model.vision.classifier import Classifier
from flamingo_jax.model.vision.trunk import VisionConfig


class VisionEncoder(nn.Module):
    """One image or video frame -> s features: the trunk's, then the answer of its classifier if it keeps one."""

    config: VisionConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: UInt8[Array, 'b height width 3'] | Float[Array, 'b height width 3']
    ) -> Float[Array, 'b s d_v']:
        """Features of pixels in 0..255; the trunk does its own preprocessing."""
        x = self.config.trunk(self.dtype, name='trunk')(images.astype(jnp.float32))
        d_v = x.shape[-1]
        mean = self.param('mean', nn.with_logical_partitioning(nn.initializers.zeros, ('vision_out',)), (d_v,))
        std = self.param('std', nn.with_logical_partitioning(nn.initializers.ones, ('vision_out',)), (d_v,))
        mean, std = cast(Any, jax.lax.stop_gradient((mean, std)))  # Measured, not learnt, even if the trunk is trained.
        features = (x - mean.astype(x.dtype)) / std.astype(x.dtype)
        if not self.config.classes:
            return features
        return jnp.concatenate([features, Classifier(self.config.classes, name='classifier')(x)], axis=1)
