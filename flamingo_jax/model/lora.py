"""LoRA (Hu et al. 2021): frozen weights plus a trained product of low rank, W + alpha / rank * A B.

A and B are a component tree, `lora`, with the structure of `lm`'s blocks: a kernel [layers inputs outputs] has a
[layers inputs rank] and b [layers rank outputs]. A linear map computes x W + (x A) B, since adding A B to a bfloat16
weight would round a training step's change away. B is zero at first: a new model equals the one without LoRA bit for
bit.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from flamingo_jax.errors import UserError
from flamingo_jax.model.config import LoraConfig

KEPT = 0.9  # The least share of a change that a merged kernel must keep.
ATTENTION, FFW = ('query', 'key', 'value', 'out'), ('up', 'gate', 'down')


def init(config: LoraConfig, blocks: dict[str, Any], key: Key[Array, '']) -> dict[str, Any]:
    """New A and B, float32, boxed, for the targets among the blocks' kernels (stacked and boxed).

    Raises:
      ValueError: there is no target, or these blocks do not have it.
    """
    there = {name: blocks[name] for name in ATTENTION} | {
        name: blocks['ffw'][name] for name in FFW if name in blocks['ffw']
    }
    if not config.targets or set(config.targets) - set(there):
        raise UserError(f'lora.targets is {config.targets}. Name some of {tuple(there)}, which the blocks have.')
    out: dict[str, Any] = {}
    for name, key_a in zip(config.targets, jax.random.split(key, len(config.targets)), strict=True):
        box, inputs = there[name]['kernel'], 2 if name == 'out' else 1
        (depth, *shape), (layers, *axes) = box.value.shape, box.names
        normal = nn.initializers.normal(math.prod(shape[:inputs]) ** -0.5)
        a = nn.with_logical_partitioning(normal, (layers, *axes[:inputs], 'rank'))
        b = nn.with_logical_partitioning(nn.initializers.zeros, (layers, 'rank', *axes[inputs:]))
        pair = dict(
            a=a(key_a, (depth, *shape[:inputs], config.rank)), b=b(key_a, (depth, config.rank, *shape[inputs:]))
        )
        (out.setdefault('ffw', {}) if name in FFW else out)[name] = dict(kernel=pair)
    return out


def scaled(config: LoraConfig, lora: dict[str, Any]) -> dict[str, Any]:
    """The pairs of one block or of all, with B scaled by alpha / rank, as the collection 'lora' of `layers.Linear`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x * (config.alpha / config.rank) if path[-1].key == 'b' else x, lora
    )


def merge(config: LoraConfig, lm: dict[str, Any], lora: dict[str, Any]) -> dict[str, Any]:
    """The language model with LoRA merged into its weights: sums in float32, rounded to its dtype.

    Where rounding would keep less than `KEPT` of the change, a kernel is float32 instead: a change below half of what
    separates two bfloat16 numbers is rounded away. Must not be traced.
    """

    changed = jax.lax.map(lambda pair: _sums(*pair), (lm['blocks'], scaled(config, lora)))
    return lm | dict(blocks=_rounded(lm['blocks'], changed))


def in_float32(lm: dict[str, Any], merged: dict[str, Any]) -> list[str]:
    """The kernels of a merged language model that are float32, unlike before."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(merged), jax.tree.leaves(lm), strict=True)
    return [jax.tree_util.keystr(path, simple=True, separator='/') for (path, x), y in pairs if x.dtype != y.dtype]


def _sums(block: dict[str, Any], lora: dict[str, Any]) -> dict[str, Any]:
    """The changed kernels of a block, float32."""
    return {
        name: _sums(block[name], part) if 'a' not in part else _sum(block[name], **part) for name, part in lora.items()
    }


def _rounded(blocks: Any, changed: Any) -> Any:
    """All kernels, the changed ones in the dtype of the blocks where that keeps the change."""
    if not isinstance(changed, dict):
        rounded = changed.astype(blocks.dtype)
        return rounded if _kept(blocks, changed, rounded) >= KEPT else changed
    return blocks | {name: _rounded(blocks[name], part) for name, part in changed.items()}


@jax.jit
def _kept(before: Float[Array, '...'], exact: Float[Array, '...'], rounded: Float[Array, '...']) -> Float[Array, '']:
    """Which share of a change is left after rounding, by projection on it: 1 if roundings average out."""
    before, rounded = before.astype(jnp.float32), rounded.astype(jnp.float32)
    change = exact - before
    return jnp.where(change.any(), jnp.sum((rounded - before) * change) / jnp.sum(change * change), 1.0)


def _sum(kernel: Float[Array, '...'], a: Float[Array, '... r'], b: Float[Array, 'r ...']) -> Float[Array, '...']:
    return kernel.astype(jnp.float32) + jnp.tensordot(a.astype(jnp.float32), b.astype(jnp.float32), 1)
