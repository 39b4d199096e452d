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
interception; what is needed here is the function `dot`.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from flamingo_jax.errors import UserError

DTYPES = {'int8': jnp.int8, 'int4': jnp.int8, 'fp8': jnp.float8_e4m3fn}  # int4: two values in an int8.
LARGEST = {'int8': 127, 'int4': 7, 'fp8': 448}
PRODUCT = 'quantised_product'  # Its name for `remat`.
GROUP = 32  # Inputs that share a scale in int4, if their number has such a divisor.
PIECE = 3 * 2**19  # Bytes of float32 weights that a CPU converts at a time: they stay in its cache.
FEW = 8  # Rows below which a CPU multiplies each by itself.


@dataclasses.dataclass(frozen=True)
class Quantisation:
    """How the matrices of a frozen language model are stored and multiplied."""

    dtype: str  # 'int8', 'int4' or 'fp8'.
    inputs: bool = False  # Whether products in the blocks have both in 8 bits. Those of the vocabulary never have.

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise UserError(f'{self.dtype!r} is not a dtype of quantised weights. Give {", ".join(map(repr, DTYPES))}.')
        if self.inputs and self.dtype == 'int4':
            raise UserError('Products have both in 8 bits, not in 4. Give int8 or fp8 with inputs=True.')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantised:
    """A matrix, or a stack of them, in place of an array of parameters: a row for each output, its inputs last."""

    values: Any  # [... outputs inputs]. int4: of each group first the low halves of its bytes, then the high ones.
    scale: Any  # [... outputs 1], or int4: [... outputs groups].
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


def itemsize(path: Sequence[str], how: Quantisation) -> float | None:
    """Bytes of each weight of a matrix of `lm`, without the scales; None if it is not quantised."""
    if not contracted(path, 1):
        return None
    return 0.5 if dtype_of(path, how) == 'int4' else 1.0


def _is_box(x: Any) -> bool:
    return isinstance(x, nn.meta.AxisMetadata)


def _quantise_leaf(path, leaf, how, dtype):
    x = leaf.value if _is_box(leaf) else leaf
    axes, kind, inputs = contracted(path, x.ndim), dtype_of(path, how), how.inputs and path[0] == 'blocks'
    if kind == 'int4' and axes and x.shape[axes[-1]] % 2:
        raise UserError(
            f'lm/{"/".join(path)} has {x.shape[axes[-1]]} inputs, an odd number, which int4 cannot pack. Give int8.'
        )
    if not axes:
        make = functools.partial(_cast, jnp.dtype(dtype))
        return leaf.replace_boxed(jax.eval_shape(make, x)) if _is_box(leaf) else make(x)
    others = [i for i in range(x.ndim) if i not in axes]
    make = functools.partial(_rounded, (*others, *axes), len(axes), kind, inputs)
    if not _is_box(leaf):
        return make(x)
    new = jax.eval_shape(make, x)
    names = [leaf.names[i] for i in others]
    values = dataclasses.replace(leaf.replace_boxed(new.values), names=(*names, *(leaf.names[i] for i in axes)))
    scale = dataclasses.replace(leaf.replace_boxed(new.scale), names=(*names, *['groups'] * len(axes)))
    return dataclasses.replace(new, values=values, scale=scale)


@functools.partial(jax.jit, static_argnums=0)
def _cast(dtype, x):
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _rounded(order: tuple[int, ...], contracted: int, kind: str, inputs: bool, x) -> Quantised:
    """The dimensions of x in this order, of which the last `contracted` are inputs."""
    x = x.transpose(order)
    if kind != 'int4':
        return Quantised(*to_values(x, tuple(range(-contracted, 0)), kind), inputs)
    size = x.shape[-1]
    group = group_of(size)
    values, scale = to_values(x.reshape(*x.shape[:-1], size // group, 2, group // 2), (-2, -1), kind)
    packed = jnp.left_shift(values[..., 1, :], 4) | (values[..., 0, :] & 15)
    return Quantised(packed.reshape(*x.shape[:-1], size // 2), scale[..., 0, 0], packed=True)


def group_of(size: int) -> int:
    """How many of `size` inputs, an even number, share a scale in int4: from 16 to 32, or else more.

    With few inputs to a scale, the scales would take the bytes that are saved: 2 * 47 inputs are one group.
    """
    even = [n for n in range(2, size + 1, 2) if size % n == 0]
    usual = [n for n in even if GROUP // 2 <= n <= GROUP]
    return max(usual) if usual else min(n for n in even if n > GROUP or n == size)


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


def dot(x: Float[Array, 'm k'], kernel: Quantised, result_dtype: DTypeLike) -> Float[Array, 'm n']:
    """x times a matrix, in the dtype of x; the result is rounded once."""
    values = kernel.values.reshape(-1, x.shape[1] // (1 + kernel.packed))
    how = _How(jnp.dtype(result_dtype), kernel.inputs, kernel.packed)
    # `remat` does not see into the product. By this name it can keep the result.
    return checkpoint_name(_product(x, values, kernel.scale.reshape(len(values), -1), how), PRODUCT)


def take(kernel: Quantised, rows: Int[Array, '...'], dtype: DTypeLike) -> Float[Array, '... k']:
    """Some of the rows, such as the embeddings of tokens."""
    values, scale = (jnp.take(x, rows, axis=0).astype(jnp.float32) for x in (kernel.values, kernel.scale))
    return (values * scale).astype(dtype)


class _How(NamedTuple):
    result_dtype: jnp.dtype
    inputs: bool
    packed: bool


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _product(x, values, scale, how: _How):
    if how.inputs:
        x, of_token = to_values(x, 1, 'int8' if values.dtype == jnp.int8 else 'fp8')
        y = _dot(x, values, jnp.int32 if values.dtype == jnp.int8 else jnp.float32) * of_token
    else:
        y: Any = jax.lax.platform_dependent(
            x, values, scale, cpu=functools.partial(_on_cpu, how), default=functools.partial(_converted, how)
        )
    return (y if how.packed else y * scale[:, 0]).astype(how.result_dtype)


def _forward(x, values, scale, how):
    return _product(x, values, scale, how), (values, scale, x[:0])


def _backward(how, kept, dy):
    values, scale, x = kept
    dy = (dy if how.packed else dy.astype(jnp.float32) * scale[:, 0]).astype(x.dtype)
    parts = [
        jnp.dot(dy, part, preferred_element_type=x.dtype) for part in _matrices(values, scale, how.packed, x.dtype)
    ]
    if how.packed:
        parts = [jnp.stack([part.reshape(len(dy), scale.shape[1], -1) for part in parts], axis=2)]
    return parts[0].reshape(len(dy), -1), None, None


_product.defvjp(_forward, _backward)


def _dot(x, rows, dtype):
    return jax.lax.dot_general(x, rows, (((1,), (1,)), ((), ())), preferred_element_type=dtype)


def _converted(how, x, values, scale):
    """The float32 product of weights in the dtype of x; the scales of outputs are left to the caller."""
    matrices = _matrices(values, scale, how.packed, x.dtype)
    return sum(_dot(*pair, jnp.float32) for pair in zip(_inputs(x, scale, how.packed), matrices, strict=True))


def _on_cpu(how, x, values, scale):
    """The same. XLA multiplies bytes there at 1 GB/s, and writes a converted matrix to memory as a whole.

    A product of one row with the transpose, converted, is the form that XLA's CPU compiler turns into one loop, which
    reads int8 at 17 GB/s. The loop over two halves keeps what made x out of that loop, and keeps a loop over tokens
    from transposing the matrix before it begins. Many rows have the matrix converted in pieces, which stay in the
    cache.
    """
    n, least = len(values), 4 * values.size * (1 + how.packed) / PIECE
    few = not how.packed and len(x) < FEW

    def rows(values, scale):
        if not few:
            return _converted(how, x, values, scale)
        columns = values.T.astype(x.dtype)
        return jnp.concatenate([jnp.dot(row[None], columns, preferred_element_type=jnp.float32) for row in x])

    some = (2,) if few else range(math.ceil(least), math.ceil(4 * least))
    pieces = next((p for p in some if n % p == 0), 1)
    if pieces == 1:
        return rows(values, scale)
    cut = (part.reshape(pieces, n // pieces, -1) for part in (values, scale))
    return jax.lax.map(lambda piece: rows(*piece), tuple(cut)).swapaxes(0, 1).reshape(len(x), n)


def _inputs(x, scale, packed: bool) -> list[Array]:
    """The columns of x that meet each of `_matrices`."""
    if not packed:
        return [x]
    halves = x.reshape(len(x), scale.shape[1], 2, -1)
    return [halves[:, :, i].reshape(len(x), -1) for i in range(2)]


def _matrices(values, scale, packed: bool, dtype) -> list[Array]:
    """The matrix, in `dtype` and without the scales of its outputs; or the two that are packed in it, scaled."""
    if not packed:
        return [values.astype(dtype)]
    halves = jnp.right_shift(jnp.left_shift(values, 4), 4), jnp.right_shift(values, 4)
    of_group = scale.astype(jnp.float32)[..., None]
    scaled = (half.reshape(*scale.shape, -1).astype(jnp.float32) * of_group for half in halves)
    return [half.reshape(values.shape).astype(dtype) for half in scaled]
