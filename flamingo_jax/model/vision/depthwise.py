"""Depthwise convolutions: each channel has a kernel of its own.

XLA's grouped convolution is right for GPU and TPU. On CPU it takes about 30 times as long as a sum of shifted images.
"""

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from flamingo_jax.model.vision.convolution import conv


# Traced once for all blocks of a shape.
@functools.partial(jax.jit, static_argnames='stride', inline=True)
def depthwise_conv(
    x: Float[Array, 'b height width d'], kernel: Float[Array, 'k k 1 d'], stride: int
) -> Float[Array, 'b height2 width2 d']:
    """A depthwise convolution with SAME padding, in the form that is fast on the target device.

    The target chooses the form when XLA lowers, not the machine that traces: a program that a laptop compiles ahead
    for a TPU gets the TPU's form.
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: depthwise_by_shifts(x, kernel, stride),
        default=lambda x, kernel: depthwise_by_library(x, kernel, stride),
    )


def depthwise_by_library(
    x: Float[Array, 'b height width d'], kernel: Float[Array, 'k k 1 d'], stride: int
) -> Float[Array, 'b height2 width2 d']:
    """The grouped convolution of XLA. Right on GPU and TPU; about 30 times slower than the shifts on CPU."""
    return conv(x, kernel, stride, groups=x.shape[-1])


def _pads(size: int, kernel_size: int, stride: int) -> tuple[int, int, int]:
    """SAME padding of one side: pixels before, pixels after, and where the last of the results begins."""
    ((before, after),) = lax.padtype_to_pads((size,), (kernel_size,), (stride,), 'SAME')
    return before, after, stride * (-(-size // stride) - 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_by_shifts(
    x: Float[Array, 'b height width d'], kernel: Float[Array, 'k k 1 d'], stride: int
) -> Float[Array, 'b height2 width2 d']:
    """The same as a sum of k * k shifted images, each times one row of the kernel: one fused loop on CPU.

    Its gradient is written out, since XLA's takes up to 5 times as long on CPU (`benchmarks/depthwise.py`).
    """
    _, height, width, _ = x.shape
    (top, under, bottom), (left, beside, right) = (_pads(size, len(kernel), stride) for size in (height, width))
    x = jnp.pad(x, ((0, 0), (top, under), (left, beside), (0, 0)))
    shifted = (
        x[:, i : i + bottom + 1 : stride, j : j + right + 1 : stride] * kernel[i, j, 0]
        for i, j in np.ndindex(kernel.shape[:2])
    )
    return cast(Array, sum(shifted))


def _forward(x, kernel, stride):
    return depthwise_by_shifts(x, kernel, stride), (x, kernel)


def _backward(stride, saved, g):
    """The gradients of `depthwise_by_shifts`: its transpose is a sum of shifts too."""
    x, kernel = saved
    size = len(kernel)
    _, height, width, _ = x.shape
    (top, under, bottom), (left, beside, right) = (_pads(side, size, stride) for side in (height, width))
    # As far apart as the pixels from which each result comes, with zeros between and around.
    around = ((size - 1 - top, height + top - 1 - bottom), (size - 1 - left, width + left - 1 - right))
    spread = lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), *((*side, stride - 1) for side in around), (0, 0, 0)))
    dx = sum(
        spread[:, i : i + height, j : j + width] * kernel[size - 1 - i, size - 1 - j, 0]
        for i, j in np.ndindex(size, size)
    )
    x = jnp.pad(x, ((0, 0), (top, under), (left, beside), (0, 0)))

    def add_row(r, sums):  # Sums over rows first, element by element: a sum over all pixels at once is the slow part.
        row = lax.dynamic_index_in_dim(g, r, axis=1, keepdims=False)
        rows = lax.dynamic_slice_in_dim(x, r * stride, size, axis=1)
        return tuple(
            one + (rows[:, i, j : j + right + 1 : stride] * row).astype(jnp.float32)
            for one, (i, j) in zip(sums, np.ndindex(size, size), strict=True)
        )

    zeros = jnp.zeros((len(g), *g.shape[2:]), jnp.float32)
    sums = lax.fori_loop(0, g.shape[1], add_row, (zeros,) * size**2)
    dkernel = jnp.stack([one.sum(axis=(0, 1)) for one in sums]).reshape(kernel.shape)
    return dx, dkernel.astype(kernel.dtype)


depthwise_by_shifts.defvjp(_forward, _backward)
