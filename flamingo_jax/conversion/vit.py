"""Published vision transformers of CLIP and SigLIP as trees for `model/vision/vit.py`.

The tensors have three sets of names. The name of the patches' kernel tells which:

    open_clip      visual.conv1.weight                       OpenAI's own files and open_clip's CLIP
    transformers   vision_model.embeddings.patch_embedding   folders of CLIPModel, CLIPVisionModel, SiglipModel; IDEFICS
    timm           patch_embed.proj.weight                   timm's ViTs, and as visual.trunk. open_clip's SigLIP

The config.json and the preprocessor_config.json of a transformers folder say everything, and so does an
open_clip_config.json next to open_clip's file. A state dict alone does not give its activation, which must then be an
argument: OpenAI's weights with GELU are slightly wrong everywhere, without any sign of it. Nor does it give how
images are normalised and cropped: that is then as for OpenAI's. A SigLIP has the tanh GELU of its authors' code and
of transformers; timm computes the first models with the exact one.
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from flamingo_jax.conversion.hugging_face import activation_of, open_tensors, read_json
from flamingo_jax.conversion.readers import read_weights
from flamingo_jax.conversion.tensors import State, Tensor, kernel, matrix, norm, sizes, to_tree, vector
from flamingo_jax.conversion.trunk import Trunk
from flamingo_jax.errors import UserError
from flamingo_jax.model.vision.clip_embedding import ClipEmbeddingConfig
from flamingo_jax.model.vision.vit import SIGLIP_MEAN, SIGLIP_STD, ViTConfig

# The name of the patches' kernel in each set of names.
PATCHES = {
    'open_clip': 'conv1.weight',
    'transformers': 'embeddings.patch_embedding.weight',
    'timm': 'patch_embed.proj.weight',
}
PREFIXES = ('', 'visual.', 'visual.trunk.', 'vision_model.', 'trunk.')
# Tensors that a trunk does not use: the text side, the projections into the shared space, and pooling.
BESIDE = (
    ('text.', 'text_model.', 'transformer.', 'token_embedding.', 'positional_embedding', 'ln_final.', 'text_projection')
    + ('visual_projection.', 'visual.head.', 'logit_scale', 'logit_bias')
    + ('input_resolution', 'context_length', 'vocab_size', 'attn_mask')
)
HEADS = ('proj', 'head.', 'attn_pool.', 'embeddings.position_ids')
# Head widths of open_clip and timm for widths whose heads are not 64 wide.
HEAD_WIDTHS = {1152: 72, 1280: 80, 1408: 88, 1536: 96, 1664: 104, 1792: 112}
FITS = {'shortest': 'crop', 'squash': 'squash'}  # open_clip's names.


def vit(
    kind: str,
    source: str,
    activation: str = '',
    heads: int = 0,
    norm_features: bool | None = None,
    class_feature: bool = False,
) -> Trunk:
    """The vision transformer of a CLIP or SigLIP (`kind`); see `read_vit`.

    Raises:
      ValueError: the source is not such a checkpoint. The message names it.
    """
    vision, params = read_vit(source, kind, activation, heads)
    features = dict(class_feature=class_feature)
    if norm_features is not None:
        features['norm_features'] = norm_features
    return Trunk({'clip': 'CLIP', 'siglip': 'SigLIP'}[kind], dataclasses.replace(vision, **features), params)


def clip_embedding(source: str, activation: str = '', heads: int = 0) -> Trunk:
    """A CLIP with its projection. ValueError if the source does not hold one; the message names it."""
    return Trunk('CLIP embedding', *read_clip_embedding(source, activation, heads))


def read_vit(
    source: str, kind: str, activation: str = '', heads: int = 0, unsaid: str = ''
) -> tuple[ViTConfig, dict[str, Any]]:
    """The config and the 'params' of `ViT(config)` of a published CLIP or SigLIP, in its stored dtype.

    Args:
      source: a transformers folder, or a state dict's file (.safetensors, .pt, .bin) of open_clip, OpenAI or timm.
      kind: 'clip' or 'siglip'.
      activation: 'quick_gelu', 'gelu' or 'gelu_tanh', in place of the source's, or for one that does not give it.
      heads: likewise.
      unsaid: the activation if neither the source nor `activation` gives one; '' raises an error.

    Raises:
      ValueError: the source is not a whole model of this kind; the message names it, the wrong tensors and a remedy.
    """
    path = pathlib.Path(source).expanduser()
    fields = read_json(path / 'config.json') if path.is_dir() else None
    state = read_weights(path) if fields is None else open_tensors(path)
    try:
        spelling, prefix = _spelling(state)
        if fields is not None:
            config, said = config_of_transformers(fields, kind), said_by_preprocessor(preprocessor(path))
            given: dict[str, Any] = dict(activation=activation, heads=heads)
            config = dataclasses.replace(config, **{name: value for name, value in given.items() if value})
        else:
            said = _said_beside(path)
            activation, heads = activation or said.get('activation', unsaid), heads or said.get('heads', 0)
            config = _config_of_state(state, spelling, prefix, kind=kind, activation=activation, heads=heads)
            if said.get('image_size', 0) // config.patch == config.resolution // config.patch:
                said['resolution'] = said['image_size']  # An image may have a rest of less than a patch.
        of_images = {name: said[name] for name in ('mean', 'std', 'fit', 'resolution') if name in said}
        config = dataclasses.replace(config, **of_images)
        heads_of = tuple(prefix + name for name in HEADS)
        leftover = [name for name in state if name.startswith(heads_of) or (prefix and name.startswith(BESIDE))]
        return config, to_tree(vit_tensors(config, spelling, prefix), state, leftover)
    except (
        ArithmeticError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # A value in JSON can have any type.
        raise UserError(
            f'{source} is not a whole {kind.upper()} vision transformer: {error}. Give a folder of transformers '
            '(config.json '
            "and its weights), or a file of open_clip's, OpenAI's or timm's weights."
        ) from error


def read_clip_embedding(
    source: str, activation: str = '', heads: int = 0
) -> tuple[ClipEmbeddingConfig, dict[str, Any]]:
    """The config and the 'params' of `ClipEmbedding(config)` of a published CLIP.

    Arguments and errors as for `read_vit`.
    """
    tower, params = read_vit(source, 'clip', activation, heads)
    path = pathlib.Path(source).expanduser()
    state = open_tensors(path) if path.is_dir() else read_weights(path)
    # open_clip's and OpenAI's files have it the other way round.
    names = {'visual_projection.weight': True, 'visual.proj': False, 'proj': False}
    found = next((name for name in names if name in state), None)
    if found is None:
        raise UserError(
            f'{source} has no projection into the space that images share with texts ({", ".join(names)}). Give a '
            'whole CLIP, as CLIPModel or CLIPVisionModelWithProjection of transformers, or a file of open_clip.'
        )
    projection = state[found][...]
    projection = np.ascontiguousarray(projection.T if names[found] else projection)
    if projection.ndim != 2 or len(projection) != tower.width:
        raise UserError(
            f'{source}: {found} has shape {state[found].shape}, which does not fit the width {tower.width}.'
        )
    config = ClipEmbeddingConfig(tower, projection.shape[1])
    return config, {'tower': params, 'projection': {'kernel': projection}}


def config_of_transformers(fields: dict[str, Any], kind: str) -> ViTConfig:
    """The config of a transformers CLIP or SigLIP from its config.json, or from the vision part of it."""
    model_type = fields.get('model_type', '')
    if not model_type.startswith(kind):
        raise UserError(f'its config.json has model_type {model_type!r}, which is not a {kind.upper()}')
    fields = fields.get('vision_config') or fields
    siglip = kind == 'siglip'
    return ViTConfig(
        width=fields.get('hidden_size', 768),
        depth=fields.get('num_hidden_layers', 12),
        heads=fields.get('num_attention_heads', 12),
        ffw_width=fields.get('intermediate_size', 3072),
        patch=fields.get('patch_size', 16 if siglip else 32),
        resolution=fields.get('image_size', 224),
        activation=activation_of(fields.get('hidden_act', 'gelu_pytorch_tanh' if siglip else 'quick_gelu')),
        norm_eps=fields.get('layer_norm_eps', 1e-6 if siglip else 1e-5),
        **(_SIGLIP if siglip else {}),
    )


_SIGLIP: dict[str, Any] = dict(
    class_token=False,
    norm_in=False,
    patch_bias=True,
    norm_features=True,
    mean=SIGLIP_MEAN,
    std=SIGLIP_STD,
    fit='squash',
)


def _said_beside(path: pathlib.Path) -> dict[str, Any]:
    """What an open_clip_config.json in the same folder adds to the weights."""
    beside = path.parent / 'open_clip_config.json'
    if not beside.is_file():
        return {}
    fields = read_json(beside)
    model, said = fields.get('model_cfg', {}), dict(fields.get('preprocess_cfg', {}))
    vision = model.get('vision_cfg', {})
    if (mode := said.get('resize_mode')) is not None:
        if mode not in FITS:
            raise UserError(f'its open_clip_config.json has resize_mode {mode!r}, not one of {sorted(FITS)}')
        said['fit'] = FITS[mode]
    if isinstance(vision.get('image_size'), int):
        said['image_size'] = vision['image_size']
    if 'timm_model_name' not in vision:
        said['activation'] = 'quick_gelu' if model.get('quick_gelu') else 'gelu'
        said['heads'] = vision['width'] // vision.get('head_width', 64) if 'width' in vision else 0
    return said


def preprocessor(folder: pathlib.Path) -> dict[str, Any]:
    """The preprocessor_config.json of a transformers folder, or what stands in its place in newer ones; or nothing."""
    whole = folder / 'processor_config.json'
    if (file := folder / 'preprocessor_config.json').is_file():
        return read_json(file)
    return dict(read_json(whole).get('image_processor') or {}) if whole.is_file() else {}


def said_by_preprocessor(fields: dict[str, Any]) -> dict[str, Any]:
    """What a preprocessor's file says of images: their mean and std, and how they fit."""
    said = {name: fields[f'image_{name}'] for name in ('mean', 'std') if fields.get(f'image_{name}')}
    size = fields.get('size')
    if fields.get('do_center_crop'):
        said['fit'] = 'crop'
    elif isinstance(size, dict) and {'height', 'width'} <= size.keys():
        said['fit'] = 'squash'
    return said


def _spelling(state: State) -> tuple[str, str]:
    for spelling, patches in PATCHES.items():
        for prefix in PREFIXES:
            if prefix + patches in state:
                return spelling, prefix
    raise UserError(f'it has none of the tensors {sorted(PATCHES.values())}')


def _config_of_state(state: State, spelling: str, prefix: str, kind: str, activation: str, heads: int) -> ViTConfig:
    siglip = kind == 'siglip'
    blocks, up, positions = {
        'open_clip': ('transformer.resblocks.', 'mlp.c_fc.weight', 'positional_embedding'),
        'transformers': ('encoder.layers.', 'mlp.fc1.weight', 'embeddings.position_embedding.weight'),
        'timm': ('blocks.', 'mlp.fc1.weight', 'pos_embed'),
    }[spelling]
    depth = sizes(state, prefix + blocks)
    needed = [prefix + PATCHES[spelling], prefix + positions, f'{prefix}{blocks}0.{up}']
    if missing := [name for name in needed if name not in state]:
        raise UserError(f'missing: {", ".join(missing)}')
    kernel, table, hidden = (state[name] for name in needed)
    if kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3] or hidden.ndim != 2:
        raise UserError(f'{needed[0]} has shape {kernel.shape}, {needed[2]} {hidden.shape}')
    width, patch = kernel.shape[0], kernel.shape[2]
    grid = int((table.shape[-2] - (not siglip)) ** 0.5)
    if not siglip and not activation:
        if 'input_resolution' in state:  # Only OpenAI's own files have this.
            activation = 'quick_gelu'
        else:
            raise UserError(
                'a state dict does not give its activation. Add --activation=quick_gelu (for OpenAI, and for '
                'open_clip models named -quickgelu) or --activation=gelu (for LAION and most others)'
            )
    if not heads and width % HEAD_WIDTHS.get(width, 64):
        raise UserError(
            f'a state dict does not give its number of heads, which is not known for the width {width}. Add '
            '--heads=NUMBER'
        )
    return ViTConfig(
        width=width,
        depth=depth,
        heads=heads or width // HEAD_WIDTHS.get(width, 64),
        ffw_width=hidden.shape[0],
        patch=patch,
        resolution=grid * patch,
        activation=activation or 'gelu_tanh',
        norm_eps=1e-6 if siglip else 1e-5,
        **(_SIGLIP if siglip else {}),
    )


def vit_tensors(c: ViTConfig, spelling: str, prefix: str) -> Iterator[Tensor]:
    """All tensors of a trunk in one of the three sets of names."""
    names = {
        'open_clip': dict(
            class_token='class_embedding', positions='positional_embedding', norm_in='ln_pre', norm_out='ln_post'
        )
        | dict(block='transformer.resblocks', norm_attention='ln_1', out='attn.out_proj', norm_ffw='ln_2')
        | dict(up='mlp.c_fc', down='mlp.c_proj', fused='attn.in_proj_'),
        'transformers': dict(class_token='embeddings.class_embedding', positions='embeddings.position_embedding.weight')
        | dict(norm_in='pre_layrnorm', norm_out='post_layernorm', block='encoder.layers', norm_attention='layer_norm1')
        | dict(out='self_attn.out_proj', norm_ffw='layer_norm2', up='mlp.fc1', down='mlp.fc2', fused=''),
        'timm': dict(
            class_token='cls_token', positions='pos_embed', norm_in='norm_pre', norm_out='norm', block='blocks'
        )
        | dict(norm_attention='norm1', out='attn.proj', norm_ffw='norm2', up='mlp.fc1', down='mlp.fc2')
        | dict(fused='attn.qkv.'),
    }[spelling]
    d, head_dim = c.width, c.width // c.heads
    ones = (1,) if spelling == 'timm' else ()  # timm's have a batch dimension.
    patches = prefix + PATCHES[spelling]
    yield kernel(('patches', 'kernel'), patches, 3, outputs=d, height=c.patch, width=c.patch)
    if c.patch_bias:
        yield vector(('patches', 'bias'), patches.removesuffix('weight') + 'bias', d)
    n = c.grid**2 + c.class_token
    yield vector(('positions',), prefix + names['positions'], *ones, n, d, ours=(n, d))
    if c.class_token:
        yield vector(('class_token',), prefix + names['class_token'], *ones * 2, d, ours=(d,))
    if c.norm_in:
        yield from norm(('norm_in',), prefix + names['norm_in'], d)
    yield from norm(('norm_out',), prefix + names['norm_out'], d)
    for i in range(c.depth):
        used = c.depth - c.unused
        ours: tuple[str | int, ...] = ('layers', i) if i < used else ('unused_layers', i - used)
        theirs = f'{prefix}{names["block"]}.{i}.'
        yield from norm((*ours, 'norm_attention'), theirs + names['norm_attention'], d)
        yield from norm((*ours, 'norm_ffw'), theirs + names['norm_ffw'], d)
        for part, name in enumerate(('query', 'key', 'value')):
            fused, parts = theirs + names['fused'], (part, 3)
            if not names['fused']:
                fused, parts = f'{theirs}self_attn.{name[0]}_proj.', (0, 1)
            yield matrix((*ours, name, 'kernel'), fused + 'weight', d, d, (d, c.heads, head_dim), *parts)
            bias = Tensor((*ours, name, 'bias'), fused + 'bias', (parts[1] * d,), (c.heads, head_dim), (0,))
            yield dataclasses.replace(bias, view=(parts[1], d), at=(parts[0],))
        for name, inputs, outputs in (('out', d, d), ('up', d, c.ffw_width), ('down', c.ffw_width, d)):
            split = (c.heads, head_dim, d) if name == 'out' else ()
            yield matrix((*ours, name, 'kernel'), f'{theirs}{names[name]}.weight', inputs, outputs=outputs, ours=split)
            yield vector((*ours, name, 'bias'), f'{theirs}{names[name]}.bias', outputs)
