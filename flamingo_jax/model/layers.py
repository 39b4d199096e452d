"""The few layers that all components share: linear maps with named axes, norms, and the feed-forward.

Every parameter gets a logical axis name for each dimension where it is created; `constrain` gives them to activations.
The table in `parallel/rules.py` maps these names to mesh axes.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from flamingo_jax.model import quantised
from flamingo_jax.model.quantised import Quantised


def squared_relu(x: Float[Array, '...']) -> Float[Array, '...']:
    """max(x, 0)^2 (So et al. 2021), the activation of the resampler and of the gated blocks (paper, table 4)."""
    return jnp.square(jax.nn.relu(x))


T = TypeVar('T')
NORMS = ('rms', 'layer')
ACTIVATIONS = {
    'squared_relu': squared_relu,
    'gelu': lambda x: jax.nn.gelu(x, approximate=False),
    'gelu_tanh': lambda x: jax.nn.gelu(x, approximate=True),
    'quick_gelu': lambda x: x * jax.nn.sigmoid(1.702 * x),  # OpenAI's CLIP.
    'relu': jax.nn.relu,
    'silu': jax.nn.silu,
}


def soft_cap(x: Float[Array, '...'], cap: float) -> Float[Array, '...']:
    """cap * tanh(x / cap), which bounds x by cap (Gemma 2); 0 leaves x as it is."""
    return cap * jnp.tanh(x / cap) if cap else x


def constrain(x: Shaped[Array, '...'], *axes: str | None) -> Shaped[Array, '...']:
    """Shards x on the mesh by logical axis names; does nothing without a mesh (`rules.activations`).

    Without it the compiler chooses, and if parameters are sharded over the batch's mesh axes, it copies the whole
    batch.
    """
    return nn.with_logical_constraint(x, axes)


def spread(x: Float[Array | np.ndarray, '...'], shape: Sequence[int], dtype: DTypeLike) -> Float[Array, '...']:
    """A parameter, broadcast before it is cast: the gradient is then summed over its copies in float32."""
    return jnp.broadcast_to(x, shape).astype(dtype)


@functools.partial(jax.checkpoint, prevent_cse=False)  # Keeps x as it is for the backward pass, not in float32.
def times(x: Float[Array, '...'], scale: Float[Array | np.ndarray, '...']) -> Float[Array, '...']:
    """x times a parameter in float32, in which the gradient of the parameter is summed; in the dtype of x."""
    return (x.astype(jnp.float32) * scale).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(axes: str, x: Float[Array, '...'], y: Float[Array | np.ndarray, '...']) -> Float[Array, '...']:
    """An einsum, float32. The products of its backward pass have operands in the dtype of x and y.

    JAX's own would convert the weights to float32 first, the dtype of what comes back.
    """
    return jnp.einsum(axes, x, y, preferred_element_type=jnp.float32)


def _forward(axes, x, y):
    # Not a call of `product`, in which `remat` would not see that there is one to keep.
    return jnp.einsum(axes, x, y, preferred_element_type=jnp.float32), (x, y)


def _backward(axes, operands, back):
    dtype = operands[0].dtype
    _, pull = jax.vjp(functools.partial(jnp.einsum, axes, preferred_element_type=dtype), *operands)
    return pull(back.astype(dtype))


product.defvjp(_forward, _backward)


def stored(
    module: nn.Module, name: str, init: Callable[..., Any], shape: Sequence[int]
) -> Float[Array | np.ndarray, '...'] | Quantised:
    """A parameter of a module, which may be quantised (`quantised.py`)."""
    value = module.get_variable('params', name)
    return value if isinstance(value, Quantised) else module.param(name, init, shape)


def scan_layers(
    layer: nn.Module,
    depth: int,
    x: T,
    *others: Any,
    in_axes: Any = nn.broadcast,
    remat: bool = False,
) -> T:
    """x, passed through layers of one kind, whose parameters are stacked: compile time does not grow with depth.

    Args:
      layer: maps x and the others to a new x. It belongs to the compact module that calls this function.
      depth: the number of layers.
      x: an array, or several in a tuple.
      others: what else a layer takes.
      in_axes: the others' dimension of layers; by default, all layers take the same.
      remat: whether the backward pass computes each layer again.
    """

    def one(layer, x, *others):
        return layer(x, *others), None

    scan = nn.scan(
        nn.remat(one, prevent_cse=False) if remat else one,
        variable_axes={'params': 0, 'intermediates': 0},  # The latter for `inference/inspection.py`.
        split_rngs={'params': True},
        in_axes=in_axes,
        length=depth,
        metadata_params={nn.PARTITION_NAME: 'layers'},
    )
    return scan(layer, x, *others)[0]


class Linear(nn.Module):
    """A linear map that sums over the last `contracted` dimensions of x, and over the first of its kernel.

    It is computed as one product of two matrices, with heads merged: XLA's CPU backend takes several times as long for
    the gradient of an einsum over more dimensions.

    If a collection 'lora' has a pair for the kernel (`lora.py`), its product is added in float32: a training step
    changes the output by less than bfloat16's rounding.

    Attributes:
      shape, axes: the kernel's shape and its logical axis names.
      contracted: the number of leading kernel dimensions to sum over (the initial variance is 1 / fan-in).
      bias: whether a bias is added over the remaining kernel dimensions.
      dtype: dtype of the operands.
      result_dtype: dtype of the product, which is summed in float32 and rounded once: `dtype` (None), or float32.
    """

    shape: Sequence[int]
    axes: Sequence[str]
    contracted: int = 1
    bias: bool = False
    dtype: DTypeLike = jnp.float32
    result_dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, '...']) -> Float[Array, '...']:
        """x [..., *shape[:contracted]] -> [..., *shape[contracted:]], in `result_dtype`."""
        c, dtype = self.contracted, self.result_dtype or self.dtype
        inputs, outputs = tuple(range(c)), tuple(range(c, len(self.shape)))
        init = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal', in_axis=inputs, out_axis=outputs)
        kernel = stored(self, 'kernel', nn.with_logical_partitioning(init, self.axes), self.shape)
        leading, fan_in, fan_out = x.shape[: x.ndim - c], math.prod(self.shape[:c]), math.prod(self.shape[c:])
        x = x.astype(self.dtype).reshape(-1, fan_in)
        if self.has_variable('lora', 'kernel'):
            pair = self.get_variable('lora', 'kernel')
            a, b = pair['a'].reshape(fan_in, -1), pair['b'].reshape(-1, fan_out)
            low = cast(Array, product('mk,kr->mr', x, a.astype(self.dtype))).astype(self.dtype)
            change = cast(Array, product('mr,rn->mn', low, b.astype(self.dtype)))
            y = (self._times(x, kernel, jnp.float32) + change).astype(dtype)
        else:
            y = self._times(x, kernel, dtype)
        y = y.reshape(*leading, *self.shape[c:])
        if self.bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[c:])
            y = y + spread(self.param('bias', zeros, self.shape[c:]), y.shape, dtype)
        return y

    def _times(self, x: Array, kernel: Any, dtype: DTypeLike) -> Array:
        if isinstance(kernel, Quantised):
            return quantised.dot(x, kernel, dtype)
        kernel = kernel.astype(self.dtype).reshape(x.shape[1], -1)
        if dtype == self.dtype:
            return jnp.dot(x, kernel, preferred_element_type=dtype)
        return product('mk,kn->mn', x, kernel)


class Norm(nn.Module):
    """Layer norm with scale and bias, or RMS norm with scale, over the last dimension; statistics in float32."""

    kind: str = 'layer'  # 'layer' (Ba et al. 2016) or 'rms' (Zhang and Sennrich 2019).
    eps: float = 1e-5
    axis: str = 'embed'
    bias: bool = True  # Whether a layer norm has a bias.
    offset: float = 0.0  # Added to the scale: Gemma stores scale - 1.
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, '... d']) -> Float[Array, '... d']:
        """Normalises x; the result has `dtype`."""
        shape = x.shape[-1:]
        ones = nn.with_logical_partitioning(nn.initializers.constant(1 - self.offset), (self.axis,))
        stored: Any = self.param('scale', ones, shape)
        scale = stored.astype(jnp.float32) + self.offset
        x = x.astype(jnp.float32)
        if self.kind == 'layer':
            x = x - x.mean(axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + self.eps) * scale
        if self.kind == 'layer' and self.bias:
            bias: Any = self.param('bias', nn.with_logical_partitioning(nn.initializers.zeros, (self.axis,)), shape)
            x = x + bias.astype(jnp.float32)
        return x.astype(self.dtype)


class FeedForward(nn.Module):
    """d -> hidden -> d with one activation between; `gated` multiplies by a second projection (Shazeer 2020)."""

    hidden: int
    activation: str = 'squared_relu'
    gated: bool = False
    bias: bool = False
    axis: str = 'embed'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, '... d']) -> Float[Array, '... d']:
        """The feed-forward of x, without norm and without residual."""
        d = x.shape[-1]
        into: dict[str, Any] = dict(shape=(d, self.hidden), axes=(self.axis, 'ffw'), bias=self.bias, dtype=self.dtype)
        hidden = ACTIVATIONS[self.activation](Linear(**into, name='up')(x))
        if self.gated:
            hidden = hidden * Linear(**into, name='gate')(x)
        hidden = constrain(hidden, 'batch', *[None] * (x.ndim - 2), 'ffw')
        return Linear((self.hidden, d), ('ffw', self.axis), bias=self.bias, dtype=self.dtype, name='down')(hidden)
