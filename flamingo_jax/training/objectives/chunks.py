"""A loss summed over positions, a chunk of them at a time: the logits of all are never in memory together.

A batch of 8 rows of 256 tokens has 262 MB of float32 logits over 32,000 tokens, and 2.1 GB over 256,000. Its softmax
and its gradient are as large again.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.model.layers import constrain
from flamingo_jax.parallel import rules

MOST = 2**28  # Bytes of the float32 logits of a chunk on a device. More would hardly save passes over the vocabulary.

Sums = dict[str, Float[Array, '']]
# (trained, frozen, text [b c d], others [b c ...]) -> (loss, sums for the metrics), over c positions.
OfChunk = Callable[[Params, Params, Array, Any], tuple[Float[Array, ''], Sums]]


def number(model: Flamingo, b: int, l: int, mesh: Mesh | None = None) -> int:
    """The number of chunks into which l positions of b rows are cut, on a mesh or where `rules.activations` holds."""
    return min(l, math.ceil(logits_bytes(model, b, l, mesh) / MOST))


def logits_bytes(model: Flamingo, b: int, l: int, mesh: Mesh | None = None) -> int | float:
    """Bytes on a device of the float32 logits of l positions of b rows."""
    vocabulary = model.config.lm.vocab_size + len(model.config.extra_tokens)
    return 4 * b * l * vocabulary / rules.shards('batch', mesh) / rules.shards('vocab', mesh)


def of_head(params: Params) -> Params:
    """The part of the component trees that `Flamingo.unembed` reads."""
    head = {'lm': {'embedder': params['lm']['embedder']}} if 'lm' in params else {}
    return head | {name: params[name] for name in ('extra_tokens',) if name in params}


def summed(
    of_chunk: OfChunk, trained: Params, frozen: Params, y: Any, others: Any, number: int
) -> tuple[Float[Array, ''], Sums]:
    """The sums of `of_chunk` over all positions, of which it gets a part at a time.

    The gradient is exact. It is computed together with the value, so that nothing of a chunk is kept for the backward
    pass, and no product is computed twice.

    Args:
      of_chunk: the loss of some positions. It must give 0 where all of `others` is 0.
      trained, frozen: parameters; the first have a gradient.
      y: the text after the last block [b l d]. It has a gradient.
      others: arrays [b l ...] without a gradient.
      number: of chunks, see above.
    """
    trained, frozen = of_head(trained), of_head(frozen)
    if number == 1:
        return of_chunk(trained, frozen, y, others)
    size = -(-y.shape[1] // number)

    def cut(x):
        x = jnp.pad(x, ((0, 0), (0, number * size - x.shape[1]), *[(0, 0)] * (x.ndim - 2)))
        x = x.reshape(x.shape[0], number, size, *x.shape[2:]).swapaxes(0, 1)
        return constrain(x, None, 'batch', *[None] * (x.ndim - 2))

    return _scanned(of_chunk, trained, frozen, *jax.tree.map(cut, (y, others)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scanned(of_chunk, trained, frozen, y, others):
    def add(total, xs):
        return jax.tree.map(jnp.add, total, of_chunk(trained, frozen, *xs)), None

    return jax.lax.scan(add, _zeros(of_chunk, trained, frozen, y, others), (y, others))[0]


def _forward(of_chunk, trained, frozen, y, others):
    def add(totals, xs):
        y, others = xs
        value, (of_trained, of_y) = jax.value_and_grad(of_chunk, (0, 2), has_aux=True)(trained, frozen, y, others)
        return jax.tree.map(jnp.add, totals, (value, of_trained)), of_y

    # Summed in float32, whatever the parameters' dtype.
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), trained)
    (total, of_trained), of_y = jax.lax.scan(add, (_zeros(of_chunk, trained, frozen, y, others), nothing), (y, others))
    return total, (jax.tree.map(lambda x, like: x.astype(like.dtype), of_trained, trained), of_y)


def _backward(of_chunk, gradients, outside):
    del of_chunk
    of_trained, of_y = jax.tree.map(lambda x: (x * outside[0]).astype(x.dtype), gradients)
    return of_trained, None, of_y, None


_scanned.defvjp(_forward, _backward)


def _zeros(of_chunk, trained, frozen, y, others):
    shapes = jax.eval_shape(of_chunk, trained, frozen, *jax.tree.map(lambda x: x[0], (y, others)))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
