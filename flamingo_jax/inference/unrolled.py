"""The model for decoding one token at a time on one CPU device: a Python loop over the blocks instead of a scan.

XLA's CPU backend copies each slice that a scan takes from a stack, which are all weights, for each token. So each stack
becomes a list with an entry per block (`apart`). The price is a compile time that grows with depth.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.model.language_model import KeysValues


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
    index: Int[Array, '*b'] | int,
    remat: str,
) -> tuple[Float[Array, 'b l d'], Any]:
    """Computes `stack.scan` with lists in place of stacks; only with a cache.

    Decoding does not use `remat`, and `block` already has `index`.
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
    """A Flamingo that loops over its blocks in Python. Parameters, media and cache must be `apart`."""

    loop: ClassVar[Callable[..., Any]] = staticmethod(run_one_by_one)

    def empty_cache(self, b: int, length: int) -> KeysValues:
        """As a Flamingo's, apart."""
        lm = self.config.lm
        return KeysValues(
            *([jnp.zeros((b, lm.kv_heads, length, lm.head_dim), self.dtype)] * lm.depth for _ in range(2))
        )


def unroll(model: Flamingo, params: Params) -> tuple[Unrolled, Params]:
    """The unrolled model, and its parameters with their stacks apart, as views."""
    (device,) = jax.tree.leaves(params)[0].devices()

    def views(stacks):
        return jax.device_put(apart(jax.tree.map(np.asarray, stacks)), device)

    new = {name: views(params[name]) for name in ('xattn', 'lora') if name in params}
    params = params | new | {'lm': params['lm'] | {'blocks': views(params['lm']['blocks'])}}
    return Unrolled(**{field.name: getattr(model, field.name) for field in dataclasses.fields(model)}), params


def apart(stacks: Any) -> Any:
    """A tree of stacks over blocks -> the same tree, with each stack as a list with an entry per block."""
    return jax.tree.map(lambda x: [x[i] for i in range(len(x))], stacks)


def _at(lists: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], lists, is_leaf=_is_list)


def _is_list(x: Any) -> bool:
    return isinstance(x, list)
