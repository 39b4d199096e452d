"""The convolution that the vision trunks share, and the logical axis names of their parameters."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

KERNEL_AXES = ('conv_height', 'conv_width', 'vision_in', 'vision_out')
VECTOR_AXES = ('vision_out',)


def conv(
    x: Float[Array, 'b height width d'], kernel: Float[Array, 'k k d2 e'], stride: int = 1, groups: int = 1
) -> Float[Array, 'b height2 width2 e']:
    """A convolution with TensorFlow's SAME padding, with an odd pixel at the bottom and right; d2 = d / groups."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=groups,
    )


def grouped_conv(
    x: Float[Array, 'b height width d'], kernel: Float[Array, 'k k d2 e'], stride: int, groups: int
) -> Float[Array, 'b height2 width2 e']:
    """The same for a few wide groups, in the form that is fast on the target device (see `depthwise_conv`).

    Measured: XLA's CPU backend takes 3 to 6 times as long for 2 or 6 groups of 128 as for separate convolutions.
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: conv_by_group(x, kernel, stride, groups),
        default=lambda x, kernel: conv(x, kernel, stride, groups),
    )


def conv_by_group(
    x: Float[Array, 'b height width d'], kernel: Float[Array, 'k k d2 e'], stride: int, groups: int
) -> Float[Array, 'b height2 width2 e']:
    """A separate convolution for each group, concatenated."""
    pairs = zip(jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True)
    return jnp.concatenate([conv(x, kernel, stride) for x, kernel in pairs], axis=-1)
