"""The model for tokens that are decoded one at a time on one CPU device: its blocks one by one, and no stacks of them.

XLA's CPU backend copies what a scan takes from a stack: for each token all weights, which are all that a token reads. So each
stack is a list of what the blocks have (`apart`). The price is that the time to compile grows with depth.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from flamingo_jax.model.flamingo import Flamingo, Params


def run_one_by_one(
    block: Callable[..., Any],
    gated: Callable[..., Any],
    y: Float[Array, 'b l d'],
    cache: Any,
    *,
    blocks: Any,
    gates: Any,
    first: int,
    every: int,
    index: Int[Array, ''] | int,
    remat: str,
    every_block: bool,
) -> tuple[Float[Array, 'b l d'], Any]:
    """What `stack.scan` computes, with lists in place of stacks; only with a cache.

    `remat` and `every_block` mean nothing to decoding, and `index` is known to `block`.
    """
    depth, news = len(jax.tree.leaves(cache, is_leaf=_is_list)[0]), []
    for i in range(depth):
        if gates is not None and i >= first and (i - first) % every == 0:
            y = gated(y, _at(gates, (i - first) // every))
        y, new = block(y, _at(blocks, i), i, _at(cache, i))
        news.append(new)
    return y, jax.tree.map(lambda *leaves: list(leaves), *news)


@dataclasses.dataclass(frozen=True)
class Unrolled(Flamingo):
    """A Flamingo that runs its blocks one by one, on parameters, media and a cache that are `apart`."""

    loop: ClassVar[Callable[..., Any]] = staticmethod(run_one_by_one)


def unroll(model: Flamingo, params: Params) -> tuple[Unrolled, Params]:
    """The model, unrolled, and its parameters with their stacks apart: views, not copies."""
    (device,) = jax.tree.leaves(params)[0].devices()

    def views(stacks):
        return jax.device_put(apart(jax.tree.map(np.asarray, stacks)), device)

    new = {name: views(params[name]) for name in ('xattn', 'lora') if name in params}
    params = params | new | {'lm': params['lm'] | {'blocks': views(params['lm']['blocks'])}}
    return Unrolled(**{field.name: getattr(model, field.name) for field in dataclasses.fields(model)}), params


def apart(stacks: Any) -> Any:
    """A tree of stacks over blocks -> the same tree, each stack a list of what the blocks have."""
    return jax.tree.map(lambda x: [x[i] for i in range(len(x))], stacks)


def _at(lists: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], lists, is_leaf=_is_list)


def _is_list(x: Any) -> bool:
    return isinstance(x, list)
