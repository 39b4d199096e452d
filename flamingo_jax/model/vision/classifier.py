"""What a trunk's own classifier answers, as one more place of its features.

A trunk that was trained on ImageNet ends in a linear classifier, which names photographs. A Flamingo reads the features
before it (paper, section 2.1) and throws the classifier away. Kept, its logits say what the trunk takes the whole image
for, and the Resampler reads them as it reads the other places. This is no part of the paper.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class Classifier(nn.Module):
    """A linear classifier of the mean of the trunk's features."""

    classes: int

    @nn.compact
    def __call__(self, features: Float[Array, 'b s d_v']) -> Float[Array, 'b 1 d_v']:
        """The logits, with the mean 0 and the deviation 1 over the classes of each image; zeros fill the width.

        features: as the trunk gives them, not standardised.
        """
        d_v = features.shape[-1]
        kernel = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ('vision_in', 'vision_out'))
        bias = nn.with_logical_partitioning(nn.initializers.zeros, ('vision_out',))
        linear = nn.Dense(self.classes, dtype=jnp.float32, kernel_init=kernel, bias_init=bias, name='linear')
        logits = nn.standardize(linear(features.astype(jnp.float32).mean(axis=1)))
        return jnp.pad(logits, ((0, 0), (0, d_v - self.classes)))[:, None].astype(features.dtype)
