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
    """The language model with LoRA merged into its weights: sums in float32, rounded to its dtype."""

    def add(block, lora):
        block = dict(block)
        for name, part in lora.items():
            block[name] = add(block[name], part) if 'a' not in part else _sum(block[name], **part)
        return block

    return lm | dict(blocks=jax.lax.map(lambda pair: add(*pair), (lm['blocks'], scaled(config, lora))))


def _sum(kernel: Float[Array, '...'], a: Float[Array, '... r'], b: Float[Array, 'r ...']) -> Float[Array, '...']:
    product = jnp.tensordot(a.astype(jnp.float32), b.astype(jnp.float32), 1)
    return (kernel.astype(jnp.float32) + product).astype(kernel.dtype)
