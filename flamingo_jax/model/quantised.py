"""The frozen language model's matrices in 8 or 4 bits: a whole number (or a float8) for each weight, and a scale.

    weight = scale * value        scale: of an output channel; for int4, of a group of 32 inputs of a channel

Two kinds of product read them:
    weights alone      x W, with W converted to the computation's dtype as it is read: half or a quarter of the bytes
    both in 8 bits     (x / s) V, with each token's x rounded to the dtype of V as well: chips multiply int8 or float8
                       at twice the rate. The sum is exact (int8) or float32 (float8); the scales multiply it last

The gradient is that of x alone, since the weights are frozen. It passes the rounding of x unchanged (straight through,
Bengio et al. 2013), and is multiplied by the weights that the forward product read, in the computation's dtype. A
rounded gradient would be faster, as in SwitchBack (Wortsman et al. 2023), but not what the trained parts below add up.

Libraries: qwix and AQT quantise the floating-point weights anew in each training step. None of their modes trains
through weights that are stored in 8 bits and multiplied in 8 bits, and they replace `jax.lax.dot_general` by
interception; what is needed here is the two functions `dot` and `dot_rows`.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

DTYPES = {'int8': jnp.int8, 'int4': jnp.int8, 'fp8': jnp.float8_e4m3fn}  # int4: two values in an int8.
LARGEST = {'int8': 127, 'int4': 7, 'fp8': 448}
GROUP = 32  # Inputs that share a scale in int4.
PIECE = 3 * 2**19  # Bytes of float32 weights that a CPU converts at a time: they stay in its cache.


@dataclasses.dataclass(frozen=True)
class Quantisation:
    """How the matrices of a frozen language model are stored and multiplied."""

    dtype: str  # 'int8', 'int4' or 'fp8'.
    inputs: bool = False  # Whether products in the blocks have both in 8 bits. Those of the vocabulary never have.

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise ValueError(
                f'{self.dtype!r} is not a dtype of quantised weights. Give {", ".join(map(repr, DTYPES))}.'
            )
        if self.inputs and self.dtype == 'int4':
            raise ValueError('Products have both in 8 bits, not in 4. Give int8 or fp8 with inputs=True.')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantised:
    """A matrix, or a stack of them, in place of an array of parameters."""

    # In the array's shape. int4: half as many along the last contracted dimension, of each group first those in the
    # low halves of the bytes, then those in the high halves.
    values: Any
    scale: Any  # The same, with 1 (int4: the groups) in place of each contracted dimension.
    inputs: bool = dataclasses.field(default=False, metadata=dict(static=True))
    packed: bool = dataclasses.field(default=False, metadata=dict(static=True))  # Two values in a byte.


def quantise(tree: Any, how: Quantisation, dtype: DTypeLike) -> Any:
    """The `lm` tree with its matrices quantised, and all else in `dtype`; frees the arrays that it replaces.

    Args:
      tree: arrays, or shapes boxed with logical axis names; the result then has such boxes too.

    Raises:
      ValueError: int4, and a contracted dimension is odd.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_box)
    del tree
    leaves.reverse()
    new = []
    while leaves:  # One at a time, so that no more than one matrix is there twice.
        path, leaf = leaves.pop()
        new.append(_quantise_leaf([key.key for key in path], leaf, how, dtype))
        del leaf
    return jax.tree.unflatten(structure, new)


def contracted(path: Sequence[str], ndim: int) -> tuple[int, ...]:
    """The dimensions of a parameter of `lm` that its product sums over; () if it is not quantised."""
    if path[-1] == 'tokens':
        return (ndim - 1,)
    if path[-1] != 'kernel':
        return ()
    first = 1 if path[0] == 'blocks' else 0  # The layers.
    return (first, first + 1) if path[-2] == 'out' else (first,)


def dtype_of(path: Sequence[str], how: Quantisation) -> str:
    """The dtype of a matrix of `lm`: the vocabulary is never int4, since it decides the logits."""
    return 'int8' if how.dtype == 'int4' and path[0] != 'blocks' else how.dtype


def _is_box(x: Any) -> bool:
    return isinstance(x, nn.meta.AxisMetadata)


def _quantise_leaf(path, leaf, how, dtype):
    x = leaf.value if _is_box(leaf) else leaf
    axes, kind, inputs = contracted(path, x.ndim), dtype_of(path, how), how.inputs and path[0] == 'blocks'
    if kind == 'int4' and axes and x.shape[axes[-1]] % 2:
        raise ValueError(
            f'lm/{"/".join(path)} has {x.shape[axes[-1]]} inputs, an odd number, which int4 cannot pack. Give int8.'
        )
    make = functools.partial(_rounded, axes, kind, inputs) if axes else functools.partial(_cast, jnp.dtype(dtype))
    if not _is_box(leaf):
        return make(x)
    new = jax.eval_shape(make, x)
    if not axes:
        return leaf.replace_boxed(new)
    names = tuple('groups' if i in axes else name for i, name in enumerate(leaf.names))
    scale = dataclasses.replace(leaf.replace_boxed(new.scale), names=names)
    return dataclasses.replace(new, values=leaf.replace_boxed(new.values), scale=scale)


@functools.partial(jax.jit, static_argnums=0)
def _cast(dtype, x):
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _rounded(axes, kind, inputs, x) -> Quantised:
    """A leaf of a tree, with leading dimensions that are neither inputs nor outputs."""
    if kind != 'int4':
        return Quantised(*to_values(x, axes, kind), inputs)
    axis, shape = axes[-1], x.shape
    group = next(n for n in range(min(GROUP, shape[axis]), 0, -1) if n % 2 == 0 and shape[axis] % n == 0)
    x = x.reshape(*shape[:axis], shape[axis] // group, 2, group // 2, *shape[axis + 1 :])
    values, scale = to_values(x, (axis + 1, axis + 2), kind)
    low, high = (jnp.take(values, i, axis=axis + 1) for i in range(2))
    packed = (jnp.left_shift(high, 4) | (low & 15)).reshape(*shape[:axis], -1, *shape[axis + 1 :])
    return Quantised(packed, jnp.squeeze(scale, (axis + 1, axis + 2)), packed=True)


def to_values(
    x: Float[Array, '...'], axes: int | tuple[int, ...], dtype: str
) -> tuple[Shaped[Array, '...'], Float[Array, '...']]:
    """x -> (values, scale): x is about scale * values, and the largest value along `axes` is the dtype's largest."""
    x = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(x), axis=axes, keepdims=True) / LARGEST[dtype]
    if dtype == 'int4':
        scale = scale.astype(jnp.bfloat16)  # Half a bit of a weight, not one. The values are those of this scale.
    x = x / jnp.where(scale == 0, 1, scale).astype(jnp.float32)
    if dtype != 'fp8':
        x = jnp.clip(jnp.round(x), -LARGEST[dtype], LARGEST[dtype])
    return x.astype(DTYPES[dtype]), scale


def dequantise(kernel: Quantised, contracted: int, shape: Sequence[int]) -> Float[Array, '...']:
    """The float32 kernel of that shape, whose first `contracted` dimensions are summed over."""
    outputs = math.prod(shape[contracted:])
    values, scale = (x.reshape(-1, outputs) for x in (kernel.values, kernel.scale))
    parts = [part.reshape(len(scale), -1, outputs) for part in _parts(values, kernel.packed)]
    return (jnp.concatenate(parts, axis=1).astype(jnp.float32) * scale[:, None]).reshape(shape)


def dot(x: Float[Array, 'm k'], kernel: Quantised, result_dtype: DTypeLike) -> Float[Array, 'm n']:
    """x times a matrix, whose contracted dimensions come first, in the dtype of x; the result is rounded once."""
    outputs = kernel.values.size * (1 + kernel.packed) // x.shape[1]
    values, scale = (part.reshape(-1, outputs) for part in (kernel.values, kernel.scale))
    return _product(x, values, scale, _How(jnp.dtype(result_dtype), kernel.inputs, kernel.packed))


def dot_rows(x: Float[Array, 'm k'], rows: Quantised, result_dtype: DTypeLike) -> Float[Array, 'm n']:
    """x times the transpose of rows [n k], each with a scale."""
    return _product(x, rows.values, rows.scale.reshape(1, -1), _How(jnp.dtype(result_dtype), transposed=True))


def take(rows: Quantised, indices: Int[Array, '...'], dtype: DTypeLike) -> Float[Array, '... k']:
    """Some of the rows."""
    values, scale = (jnp.take(x, indices, axis=0).astype(jnp.float32) for x in (rows.values, rows.scale))
    return (values * scale).astype(dtype)


class _How(NamedTuple):
    result_dtype: jnp.dtype
    inputs: bool = False
    packed: bool = False
    transposed: bool = False  # values [n k], not [k n].


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _product(x, values, scale, how: _How):
    if how.inputs:
        x, of_token = to_values(x, 1, 'int8' if values.dtype == jnp.int8 else 'fp8')
        exact = jnp.int32 if values.dtype == jnp.int8 else jnp.float32
        y = jnp.dot(x, values, preferred_element_type=exact).astype(jnp.float32) * of_token
    else:
        y = jax.lax.platform_dependent(
            x, values, scale, cpu=functools.partial(_in_pieces, how), default=functools.partial(_at_once, how)
        )
    return (y * scale if len(scale) == 1 else y).astype(how.result_dtype)


def _forward(x, values, scale, how):
    return _product(x, values, scale, how), (values, scale, x[:0])


def _backward(how, kept, dy):
    values, scale, x = kept
    dy = (dy.astype(jnp.float32) * scale if len(scale) == 1 else dy).astype(x.dtype)
    into = functools.partial(jnp.dot, dy, preferred_element_type=x.dtype)
    if how.transposed:
        return into(values.astype(x.dtype)), None, None
    parts = [into(w.T).reshape(len(dy), len(scale), -1) for w in _matrices(values, scale, how.packed, x.dtype)]
    return jnp.concatenate(parts, axis=2).reshape(len(dy), -1), None, None


_product.defvjp(_forward, _backward)


def _at_once(how, x, values, scale):
    """The float32 product; a scale of the outputs is left to the caller."""
    product = functools.partial(jnp.dot, preferred_element_type=jnp.float32)
    if how.transposed:
        return product(x, values.T.astype(x.dtype))
    inputs = _inputs(x, len(scale), how.packed)
    return sum(map(product, inputs, _matrices(values, scale, how.packed, x.dtype)))


def _in_pieces(how, x, values, scale):
    """The same for a CPU. XLA multiplies bytes there at 1 GB/s, and writes a converted matrix to memory as a whole."""
    rows, size, groups = *values.shape, len(scale)
    least = 4 * rows * (1 + how.packed) * size / PIECE
    pieces = next(
        (n for n in range(math.ceil(least), math.ceil(4 * least)) if (rows if groups == 1 else groups) % n == 0), 1
    )
    if pieces == 1:
        return _at_once(how, x, values, scale)
    cut = values.reshape(pieces, -1, size)
    if how.transposed:
        y = jax.lax.map(lambda some: _at_once(how, x, some, scale), cut)
        return y.swapaxes(0, 1).reshape(len(x), -1)
    if groups > 1:
        scale = scale.reshape(pieces, -1, size)
    else:
        scale = jnp.broadcast_to(scale, (pieces, 1, size))

    def add(y, piece):
        return y + _at_once(how, *piece), None

    x = x.reshape(len(x), pieces, -1).swapaxes(0, 1)
    return jax.lax.scan(add, jnp.zeros((x.shape[1], size), jnp.float32), (x, cut, scale))[0]


def _inputs(x, groups: int, packed: bool) -> list[Array]:
    """The columns of x that meet each of `_matrices`."""
    if not packed:
        return [x]
    return [half.reshape(len(x), -1) for half in jnp.moveaxis(x.reshape(len(x), groups, 2, -1), 2, 0)]


def _matrices(values, scale, packed: bool, dtype) -> list[Array]:
    """The matrix, or the two that are packed in it, in `dtype`; without a scale that is of the outputs."""
    parts, groups = _parts(values, packed), len(scale)
    if groups == 1:
        return [part.astype(dtype) for part in parts]
    scale = scale.astype(jnp.float32)[:, None]
    scaled = (part.reshape(groups, -1, part.shape[1]).astype(jnp.float32) * scale for part in parts)
    return [part.reshape(values.shape).astype(dtype) for part in scaled]


def _parts(values, packed: bool) -> list[Array]:
    """Each half of the bytes, with its sign."""
    return [jnp.right_shift(jnp.left_shift(values, 4), 4), jnp.right_shift(values, 4)] if packed else [values]
