"""Published BEiTs, folders of transformers, as trees for `model/vision/beit.py`.

BeitModel, BeitForImageClassification and BeitForMaskedImageModeling have the same trunk. Models that only saw masked
images share one table of relative positions; those fine-tuned on ImageNet have one in each block.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

from flamingo_jax.conversion.hugging_face import activation_of, open_tensors, read_json
from flamingo_jax.conversion.tensors import Tensor, kernel, matrix, norm, to_tree, vector
from flamingo_jax.conversion.trunk import Trunk
from flamingo_jax.errors import UserError
from flamingo_jax.model.vision.beit import BEiTConfig

PATCHES = 'embeddings.patch_embeddings.projection.weight'
TABLE = 'relative_position_bias.relative_position_bias_table'
# What a trunk does not use: the heads, the token of masked patches, and indices that follow from the size.
HEADS = ('pooler.', 'classifier.', 'lm_head.', 'layernorm.', 'embeddings.mask_token')
INDEX = 'relative_position_index'


def beit(source: str) -> Trunk:
    """A BEiT. ValueError if the folder does not hold one; the message names it."""
    return Trunk('BEiT', *read_beit(source))


def read_beit(source: str) -> tuple[BEiTConfig, dict[str, Any]]:
    """The config and the 'params' of `BEiT(config)` of a published BEiT, in its stored dtype.

    Args:
      source: a folder of transformers.

    Raises:
      ValueError: the source is not a whole BEiT; the message names it, the wrong tensors and a remedy.
    """
    path = pathlib.Path(source).expanduser()
    try:
        config, state = config_of(read_json(path / 'config.json')), open_tensors(path)
        prefix = next((prefix for prefix in ('beit.', '') if prefix + PATCHES in state), None)
        if prefix is None:
            raise UserError(f'it has no tensor {PATCHES}')
        # The last norm of models that classify by the mean belongs to their head.
        heads = tuple(base + name for base in {prefix, ''} for name in HEADS)
        needed = {tensor.name for tensor in beit_tensors(config, prefix)}
        leftover = [name for name in state if name.endswith(INDEX) or (name.startswith(heads) and name not in needed)]
        return config, to_tree(beit_tensors(config, prefix), state, leftover)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'{source} is not a whole BEiT: {error}. Give a folder of transformers (config.json and its weights).'
        ) from error


def config_of(fields: dict[str, Any]) -> BEiTConfig:
    """The config of a BEiT from its config.json; ValueError if it is another model, or has what a trunk here lacks."""
    if fields.get('model_type') != 'beit':
        raise UserError(f'its config.json has model_type {fields.get("model_type")!r}, which is not a BEiT')
    own = fields.get('use_relative_position_bias', False)
    shared = fields.get('use_shared_relative_position_bias', False)
    if own and shared:
        raise UserError('its config.json has both shared tables of relative positions and those of each block')
    return BEiTConfig(
        width=fields.get('hidden_size', 768),
        depth=fields.get('num_hidden_layers', 12),
        heads=fields.get('num_attention_heads', 12),
        ffw_width=fields.get('intermediate_size', 3072),
        patch=fields.get('patch_size', 16),
        resolution=fields.get('image_size', 224),
        activation=activation_of(fields.get('hidden_act', 'gelu')),
        norm_eps=fields.get('layer_norm_eps', 1e-12),
        relative='block' if own else 'shared' if shared else '',
        absolute=fields.get('use_absolute_position_embeddings', False),
        layer_scale=fields.get('layer_scale_init_value', 0.1) > 0,
        norm_out=not fields.get('use_mean_pooling', True),
    )


def beit_tensors(c: BEiTConfig, prefix: str) -> Iterator[Tensor]:
    """All tensors of a trunk, by the names in published files."""
    d, head_dim, n = c.width, c.width // c.heads, c.grid**2 + 1
    patches = prefix + PATCHES
    yield kernel(('patches', 'kernel'), patches, 3, outputs=d, height=c.patch, width=c.patch)
    yield vector(('patches', 'bias'), patches.removesuffix('weight') + 'bias', d)
    yield vector(('class_token',), f'{prefix}embeddings.cls_token', 1, 1, d, ours=(d,))
    if c.absolute:
        yield vector(('positions',), f'{prefix}embeddings.position_embeddings', 1, n, d, ours=(n, d))
    if c.relative == 'shared':
        yield vector(('relative',), f'{prefix}encoder.{TABLE}', c.distances, c.heads)
    if c.norm_out:
        yield from norm(('norm_out',), f'{prefix}layernorm', d)
    for i in range(c.depth):
        ours, theirs = ('layers', i), f'{prefix}encoder.layer.{i}.'
        if c.relative == 'block':
            yield vector((*ours, 'relative'), f'{theirs}attention.attention.{TABLE}', c.distances, c.heads)
        yield from norm((*ours, 'norm_attention'), f'{theirs}layernorm_before', d)
        yield from norm((*ours, 'norm_ffw'), f'{theirs}layernorm_after', d)
        if c.layer_scale:
            yield vector((*ours, 'scale_attention'), f'{theirs}lambda_1', d)
            yield vector((*ours, 'scale_ffw'), f'{theirs}lambda_2', d)
        for name in ('query', 'key', 'value'):
            linear = f'{theirs}attention.attention.{name}'
            yield matrix((*ours, name, 'kernel'), f'{linear}.weight', d, d, (d, c.heads, head_dim))
            if name != 'key':
                yield vector((*ours, name, 'bias'), f'{linear}.bias', d, ours=(c.heads, head_dim))
        names = dict(out='attention.output.dense', up='intermediate.dense', down='output.dense')
        for name, inputs, outputs in (('out', d, d), ('up', d, c.ffw_width), ('down', c.ffw_width, d)):
            split = (c.heads, head_dim, d) if name == 'out' else ()
            yield matrix((*ours, name, 'kernel'), f'{theirs}{names[name]}.weight', inputs, outputs=outputs, ours=split)
            yield vector((*ours, name, 'bias'), f'{theirs}{names[name]}.bias', outputs)
