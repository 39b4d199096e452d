"""New parameters of a model: one tree per component, with blocks stacked."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from flamingo_jax.model import lora
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.contrastive import SharedSpace
from flamingo_jax.model.language_model import Block, Embedder, Placement
from flamingo_jax.model.vision.encoder import VisionEncoder


def init(c: FlamingoConfig, key: Key[Array, '']) -> dict[str, Any]:
    """New parameters, float32, each boxed with its logical axis names (`flax.linen.meta.unbox` removes them)."""
    names = ('vision', 'embedder', 'blocks', 'resampler', 'xattn', 'extra_input', 'extra_output', 'contrastive')
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
    params = {}
    if c.vision is not None:
        pixels = jnp.zeros((1, c.image_size, c.image_size, 3), jnp.uint8)
        params['vision'] = VisionEncoder(c.vision).init(keys['vision'], pixels)['params']
    if c.lm is not None:
        y, tokens = jnp.zeros((1, 1, c.lm.width)), jnp.zeros((1, 1), jnp.int32)
        mask = jnp.ones((1, 1, 1), bool)
        params['lm'] = {
            'embedder': Embedder(c.lm).init(keys['embedder'], tokens)['params'],
            'blocks': _init_stacked(Block(c.lm), c.lm.depth, keys['blocks'], y, Placement(tokens, mask, tokens)),
        }
        if c.lora is not None:
            params['lora'] = lora.init(c.lora, params['lm']['blocks'], keys['blocks'])
    if c.contrastive is not None:
        features, y = jnp.zeros((1, 1, c.media_width)), jnp.zeros((1, 1, c.lm.width))
        params['contrastive'] = SharedSpace(c.contrastive).init(keys['contrastive'], features, y, mask[0])['params']
    if c.resampler is not None and (c.xattn is not None or c.contrastive is not None):
        features = jnp.zeros((1, 1, 1, 1, c.vision.width))
        params['resampler'] = c.resampler.module(c.lm.width).init(keys['resampler'], features)['params']
    if c.xattn is not None:
        media = jnp.zeros((1, 1, c.media_width))
        bridge = c.xattn.module(c.lm, c.media_width)
        new = _init_stacked(bridge, c.xattn_blocks, keys['xattn'], y, media, mask, method='touch')
        params |= {'xattn': new} if new else {}  # A prefix has no parameters.
    if c.extra_tokens:
        shape, axes = (len(c.extra_tokens), c.lm.width), ('extra_tokens', 'embed')
        # Small, since at an <image> tag the image is added to the tag's row, and the frozen model should read the
        # image.
        rows_in = nn.with_logical_partitioning(nn.initializers.normal(0.02), axes)
        rows_out = nn.with_logical_partitioning(nn.initializers.normal(c.lm.width**-0.5), axes)
        params['extra_tokens'] = {'input': rows_in(keys['extra_input'], shape)}
        if not (c.extra_tied or c.extra_unwritten):
            params['extra_tokens']['output'] = rows_out(keys['extra_output'], shape)
    return params


def _init_stacked(
    module: nn.Module, n: int, key: Key[Array, ''], *args: Any, method: str | None = None
) -> dict[str, Any]:
    params = jax.vmap(lambda k: module.init(k, *args, method=method).get('params', {}))(jax.random.split(key, n))
    return jax.tree.map(
        lambda box: box.add_axis(0, {nn.PARTITION_NAME: 'layers'}),
        params,
        is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata),
    )
