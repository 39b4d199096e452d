"""The loop over the blocks as a scan over their stacks, so that compile time does not grow with depth.

In plain Python it is

    for i in range(depth):
        if i >= first and (i - first) % every == 0:
            y = gated(y, gates[(i - first) // every])
        y, cache[i] = block(y, blocks[i], i, cache[i])

`inference/unrolled.py` has that loop, for a CPU. Skip this file at first reading.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from flamingo_jax.model import quantised

# What each block keeps for the backward pass in addition to its input; '' keeps everything.
REMAT = {
    'full': jax.checkpoint_policies.nothing_saveable,
    # Products with weights; attention is recomputed.
    'dots': jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(quantised.PRODUCT),
    ),
}


def checkpoint(function: Callable[..., Any], remat: str) -> Callable[..., Any]:
    """The function, recomputed in the backward pass as `remat` says: '' (not at all), or a name in `REMAT`."""
    return jax.checkpoint(function, policy=REMAT[remat], prevent_cse=False) if remat else function


def scan(
    block: Callable[..., Any],
    gated: Callable[..., Any],
    y: Float[Array, 'b l d'],
    cache: Any,
    *,
    blocks: Any,
    gates: Any,
    first: int,
    every: int,
    index: Int[Array, '*b'] | int,
    remat: str,
    every_block: bool = False,
) -> tuple[Float[Array, '*depth b l d'], Any]:
    """The loop at the head of this file.

    Args:
      block: (y, the block's entry of `blocks`, i, its cache or None) -> (new y, its new cache or None).
      gated: (y, the gated block's entry of `gates`) -> new y.
      y, cache: the text, and each block's keys and values [depth b g p k], or None.
      blocks, gates: trees of stacks, [depth ...] and [groups ...]; without gates, no gated blocks run.
      first, every: where the groups begin, and how many blocks follow each gated one.
      index: the place in the cache where y begins, of all rows or of each.
      remat: see `checkpoint`.
      every_block: return y after every block, [depth b l d], not only after the last.

    Returns:
      y, and the new cache.
    """
    # Groups are scanned. If the last group is ragged (80 = 11 * 7 + 3), it skips the missing blocks, and each block is
    # taken from the whole stack when it is used, since cutting the stack into groups would copy the model. The same
    # holds if blocks come before the first group.
    depth, length = jax.tree.leaves(blocks)[0].shape[0], y.shape[1]
    every = min(every, depth - first)  # The rest of a group that is longer than the model would be skipped, but stored.
    groups, ragged = -(-(depth - first) // every), first > 0 or depth % every != 0
    grouped = None if ragged else jax.tree.map(lambda x: x.reshape(groups, every, *x.shape[1:]), blocks)

    def run_block(y_cache, xs):
        i, p = xs

        def go(y, cache):
            y, new = block(y, _at(blocks, i) if ragged else p, i, None if cache is None else _at(cache, i))
            if cache is not None:
                cache = jax.tree.map(lambda x, x_i: _put(x, x_i, i, index=index, length=length), cache, new)
            return y, cache

        y_cache = jax.lax.cond(i < depth, go, lambda *same: same, *y_cache) if ragged else go(*y_cache)
        return y_cache, y_cache[0] if every_block else None

    run_block, gated = checkpoint(run_block, remat), checkpoint(gated, remat)

    def run_group(y_cache, xs):
        group, gate, p = xs
        y, cache = y_cache
        if gate is not None:
            y = gated(y, gate)
        return jax.lax.scan(run_block, (y, cache), (first + group * every + jnp.arange(every), p))

    before = None
    if first:
        (y, cache), before = jax.lax.scan(run_block, (y, cache), (jnp.arange(first), None))
    (y, cache), states = jax.lax.scan(run_group, (y, cache), (jnp.arange(groups), gates, grouped))
    if every_block:
        states = states.reshape(-1, *y.shape)
        y = (jnp.concatenate([before, states]) if first else states)[:depth]
    return y, cache


def _at(stacked: Any, i: Int[Array, '']) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), stacked)


def _put(stack, block, i, index, length):
    """Writes a block's new places, at `index`, into the stack of all caches."""

    def write(stack, block, index, rows):  # The rows' axis is there if they have one place.
        new = jax.lax.dynamic_slice_in_dim(block, index, length, axis=-2)
        return jax.lax.dynamic_update_slice(stack, new[None], (i, *[0] * rows, 0, index, 0))

    if jnp.ndim(index):
        return jax.vmap(lambda *of_row: write(*of_row, rows=0), (1, 0, 0), 1)(stack, block, index)
    return write(stack, block, index, 1)


def put(old: Shaped[Array, 'b ...'], new: Shaped[Array, 'b ...'], index: Int[Array, '*b'] | int, axis: int) -> Array:
    """Writes places of rows along a negative `axis`, from `index` on: the same in all rows, or one for each."""

    def write(old, new, index):
        return jax.lax.dynamic_update_slice_in_dim(old, new, index, axis)

    return jax.vmap(write)(old, new, index) if jnp.ndim(index) else write(old, new, index)
