"""Reads and writes Llama 3.2 Vision: meta-llama/Llama-3.2-11B-Vision, -90B-Vision, and their -Instruct versions.

In transformers it is MllamaForConditionalGeneration. Everything is in one Hugging Face folder. Its language model is a
Llama 3.1 whose layers are counted together with the gated ones: of the 11B model's 40 layers, 3, 8, 13, ... are gated,
and here they stand before the blocks 3, 7, 11, ... of 32.

The embedding has eight rows beyond the vocabulary, of which the first is `<|image|>`. They are extra tokens without
output rows. A prompt begins with `<|begin_of_text|>`, as in Meta's code; transformers' processor puts it after images
at the beginning.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

from flamingo_jax.conversion import language_model_configs
from flamingo_jax.conversion.converted import Converted, not_standardised
from flamingo_jax.conversion.folders import (
    NAMES,
    card_of,
    chat_template,
    llama_layer,
    reading,
    reading_config,
    refuse_other,
    tokenizer_settings,
    with_tokens,
    without_tokens,
    write_json,
)
from flamingo_jax.conversion.hugging_face import activation_of, open_tensors, read_json, roles
from flamingo_jax.conversion.tensors import Empty, Tensor, in_memory, kernel, matrix, norm, to_tree, vector
from flamingo_jax.conversion.vit import preprocessor
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.tokenizer import IMAGE, Tokenizer
from flamingo_jax.model.bridges.mllama_xattn import MllamaXattnConfig
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.connectors.linear import LinearConfig
from flamingo_jax.model.vision.mllama_vit import ARRANGEMENTS, TILES, MllamaViTConfig

EXTRA = 8  # Rows of the embedding beyond the vocabulary.
EXTRA_TOKENS = (IMAGE, *(f'<reserved {i}>' for i in range(1, EXTRA)))
TAG = '<|image|>'  # Its name in their tokenizer.
# Beginnings of names: of the trunk, the projector, the language model and its output. Published files have the first;
# transformers 5 has the second in memory.
PREFIXES = (
    ('vision_model.', 'multi_modal_projector.', 'language_model.model.', 'language_model.lm_head.'),
    ('model.vision_model.', 'model.multi_modal_projector.', 'model.language_model.', 'lm_head.'),
)
REMEDY = 'Give a folder of meta-llama/Llama-3.2-11B-Vision, -90B-Vision or their -Instruct versions, or one fine-tuned.'
TEXT_DEFAULTS: dict[str, Any] = dict(
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=40,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=131_072,
    rms_norm_eps=1e-5,
    rope_theta=500_000.0,
    cross_attention_layers=list(range(3, 40, 5)),
)

# What matters of the config.json of the published sizes.
PUBLISHED: dict[str, dict[str, Any]] = {
    '11b': dict(model_type='mllama', text_config={}, vision_config=dict(image_size=560)),
    '90b': dict(
        model_type='mllama',
        text_config=dict(
            hidden_size=8192,
            intermediate_size=28_672,
            num_hidden_layers=100,
            num_attention_heads=64,
            cross_attention_layers=list(range(3, 100, 5)),
        ),
        vision_config=dict(image_size=560),
    ),
}


def convert(source: str, empty: Empty = in_memory, progress: bool = False) -> Converted:
    """Reads a Llama 3.2 Vision from its Hugging Face folder, in the dtypes of its tensors.

    Args:
      source: the folder.
      empty, progress: as for `tensors.to_tree`.

    Raises:
      FileNotFoundError, ValueError: a file is missing, damaged or of another model; the message names it and a remedy.
    """
    folder = pathlib.Path(source).expanduser()
    fields = read_json(folder / 'config.json')
    with reading(folder, 'Llama 3.2 Vision', REMEDY):
        with reading_config():
            config = config_of(fields)
        config = _with_images(config, folder)
        tokenizer = _open_tokenizer(folder, fields, config.lm.vocab_size)
        config = dataclasses.replace(config, image_tag=tokenizer.image_tag)
        state = open_tensors(folder)
        prefixes = next((p for p in PREFIXES if f'{p[2]}embed_tokens.weight' in state), PREFIXES[0])
        params = to_tree(tensors_of(config, prefixes), state, empty=empty, progress=progress)
    params['vision'] |= not_standardised(config.vision.width)
    return Converted(config, params, tokenizer, card_of(folder, 'a Llama 3.2 Vision'), image_tag='token')


def config_of(fields: Mapping[str, Any]) -> FlamingoConfig:
    """The config of a config.json, still without the image's tag, which is in the tokenizer."""
    if fields.get('model_type') != 'mllama':
        raise UserError(f"its config.json has model_type {fields.get('model_type')!r}, not 'mllama'")
    text = TEXT_DEFAULTS | dict(fields.get('text_config') or {})
    gated, layers = sorted(text['cross_attention_layers']), text['num_hidden_layers']
    first, every = gated[0], (gated[1] - gated[0] - 1 if len(gated) > 1 else layers)
    if every < 1 or first < 0 or gated != list(range(first, layers - 1, every + 1)):
        raise UserError(f'its cross_attention_layers {gated} of {layers} layers do not stand at equal distances')
    described = dict(text, model_type='llama', num_hidden_layers=layers - len(gated), head_dim=None)
    lm = language_model_configs.config_of(described)
    if fields.get('image_token_index', lm.vocab_size) != lm.vocab_size:
        raise UserError(f'its image_token_index is {fields["image_token_index"]}, not its vocab_size {lm.vocab_size}')
    vision = _trunk_of(dict(fields.get('vision_config') or {}))
    xattn = MllamaXattnConfig(
        first=first,
        every=every,
        heads=lm.heads,
        kv_heads=lm.kv_heads,
        head_dim=lm.head_dim,
        ffw_width=lm.ffw_width,
        activation=lm.activation,
        norm_eps=lm.norm_eps,
    )
    return FlamingoConfig(
        lm=lm,
        vision=vision,
        resampler=LinearConfig(),
        xattn=xattn,
        extra_tokens=EXTRA_TOKENS,
        extra_unwritten=True,
        image_size=vision.resolution,
    )


def _trunk_of(fields: dict[str, Any]) -> MllamaViTConfig:
    supported = fields.get('supported_aspect_ratios') or list(map(list, ARRANGEMENTS))
    if fields.get('max_num_tiles', TILES) != TILES or [tuple(pair) for pair in supported] != list(ARRANGEMENTS):
        raise UserError(f'its images have other canvases than those of up to {TILES} tiles')
    tapped = fields.get('intermediate_layers_indices')
    vision = MllamaViTConfig(
        inner=fields.get('hidden_size', 1280),
        depth=fields.get('num_hidden_layers', 32),
        global_depth=fields.get('num_global_layers', 8),
        heads=fields.get('attention_heads', 16),
        ffw_width=fields.get('intermediate_size', 5120),
        tapped=(3, 7, 15, 23, 30) if tapped is None else tapped,
        patch=fields.get('patch_size', 14),
        resolution=fields.get('image_size', 448),
        activation=activation_of(fields.get('hidden_act', 'gelu')),
        norm_eps=fields.get('norm_eps', 1e-5),
    )
    if fields.get('vision_output_dim', vision.width) != vision.width:
        raise UserError(f'its vision_output_dim is {fields["vision_output_dim"]}, but its states give {vision.width}')
    return vision


def _with_images(config: FlamingoConfig, folder: pathlib.Path) -> FlamingoConfig:
    """The config with the mean and deviation of pixels, if the folder says how images are prepared."""
    fields = preprocessor(folder)
    vision = cast(MllamaViTConfig, config.vision)
    size = fields.get('size') or {}
    tiles = fields.get('max_image_tiles', TILES), size.get('height', vision.resolution)
    if tiles != (TILES, vision.resolution):
        raise UserError(f'its images have {tiles[0]} tiles of {tiles[1]}, not {vision.resolution}')
    said = {name: fields[f'image_{name}'] for name in ('mean', 'std') if fields.get(f'image_{name}')}
    return dataclasses.replace(config, vision=dataclasses.replace(vision, **said))


def fields_of(config: FlamingoConfig) -> dict[str, Any]:
    """The config.json of a model, the inverse of `config_of`. ValueError says why a model does not fit."""
    lm, vision, xattn = config.lm, config.vision, config.xattn
    if not (isinstance(vision, MllamaViTConfig) and isinstance(xattn, MllamaXattnConfig)):
        raise UserError('This model cannot be written as a Llama 3.2 Vision: its trunk or its bridge is another.')
    gated = [xattn.first + i * (xattn.every + 1) for i in range(config.xattn_blocks)]
    rope: dict[str, Any] = dict(rope_type='default', rope_theta=lm.rotary_base)
    if lm.rotary_bands:
        bands = ('low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings')
        rope |= dict(rope_type='llama3', factor=lm.rotary_factor, **dict(zip(bands, lm.rotary_bands, strict=True)))
        rope[bands[-1]] = int(rope[bands[-1]])
    fields: dict[str, Any] = dict(
        architectures=['MllamaForConditionalGeneration'],
        model_type='mllama',
        image_token_index=lm.vocab_size,
        text_config=dict(
            model_type='mllama_text_model',
            vocab_size=lm.vocab_size,
            hidden_size=lm.width,
            intermediate_size=lm.ffw_width,
            num_hidden_layers=lm.depth + len(gated),
            num_attention_heads=lm.heads,
            num_key_value_heads=lm.kv_heads,
            hidden_act=NAMES[lm.activation],
            rms_norm_eps=lm.norm_eps,
            max_position_embeddings=lm.context,
            rope_theta=lm.rotary_base,
            rope_parameters=rope,
            tie_word_embeddings=False,
            cross_attention_layers=gated,
        ),
        vision_config=dict(
            model_type='mllama_vision_model',
            hidden_size=vision.inner,
            num_hidden_layers=vision.depth,
            num_global_layers=vision.global_depth,
            attention_heads=vision.heads,
            intermediate_size=vision.ffw_width,
            intermediate_layers_indices=list(vision.tapped),
            vision_output_dim=vision.width,
            patch_size=vision.patch,
            image_size=vision.resolution,
            hidden_act=NAMES[vision.activation],
            norm_eps=vision.norm_eps,
            max_num_tiles=TILES,
            supported_aspect_ratios=list(map(list, ARRANGEMENTS)),
        ),
    )
    same = dataclasses.replace(config_of(fields), image_tag=config.image_tag)
    of_trunk = dataclasses.replace(cast(MllamaViTConfig, same.vision), mean=vision.mean, std=vision.std)
    same = dataclasses.replace(same, vision=of_trunk)
    refuse_other(config, same, 'a Llama 3.2 Vision')
    return fields


def _open_tokenizer(folder: pathlib.Path, fields: Mapping[str, Any], v: int) -> Tokenizer:
    """The folder's tokenizer, whose image tag is the first token beyond the vocabulary."""
    path = folder / 'tokenizer.json'
    if not path.is_file():
        raise FileNotFoundError(f'{folder} has no tokenizer.json. Download it.')
    content, added = without_tokens(path, v)
    if added != {v: TAG}:
        raise UserError(f'{path} has the tokens {added} beyond the vocabulary of {v}, not {TAG} alone')
    said = roles(folder, dict(fields.get('text_config') or {}) | dict(fields))
    try:
        said |= dict(chat_template=chat_template(folder))
        model = json.dumps(dict(roles=said) | content, ensure_ascii=False).encode()
        return Tokenizer(model, 'token', v, EXTRA_TOKENS)
    except Exception as error:  # The library has error types of its own.
        raise UserError(f'{path} cannot be read ({error})') from error


def write_processor(folder: pathlib.Path, config: FlamingoConfig, tokenizer: Tokenizer) -> None:
    """Writes what transformers' AutoProcessor reads: how images are prepared, and the tokenizer."""
    vision = cast(MllamaViTConfig, config.vision)
    common: dict[str, Any] = dict(processor_class='MllamaProcessor')
    size = dict(height=vision.resolution, width=vision.resolution)
    images = common | dict(
        image_processor_type='MllamaImageProcessor',
        size=size,
        max_image_tiles=TILES,
        image_mean=vision.mean,
        image_std=vision.std,
        resample=2,
        rescale_factor=1 / 255,
        do_convert_rgb=True,
        do_resize=True,
        do_rescale=True,
        do_normalize=True,
        do_pad=True,
    )
    texts = tokenizer_settings(tokenizer) | common | dict(model_input_names=['input_ids', 'attention_mask'])
    content = with_tokens(tokenizer, {TAG: config.lm.vocab_size})
    for name, fields in (('preprocessor_config', images), ('tokenizer_config', texts), ('tokenizer', content)):
        write_json(folder / f'{name}.json', fields)
    if tokenizer.chat_template:
        (folder / 'chat_template.jinja').write_text(tokenizer.chat_template, encoding='utf-8')


def tensors_of(config: FlamingoConfig, prefixes: tuple[str, ...] = PREFIXES[0]) -> Iterator[Tensor]:
    """All tensors of a Llama 3.2 Vision, by names that begin with one of PREFIXES."""
    lm, c = config.lm, cast(MllamaXattnConfig, config.xattn)
    d, v, (trunk, projector, text, output) = lm.width, lm.vocab_size, prefixes
    for tensor in _trunk_tensors(cast(MllamaViTConfig, config.vision)):
        yield dataclasses.replace(tensor, path=('vision', 'trunk', *tensor.path), name=trunk + tensor.name)
    yield matrix(('resampler', 'project', 'kernel'), f'{projector}weight', config.vision.width, d)
    yield vector(('resampler', 'project', 'bias'), f'{projector}bias', d)
    whole = f'{text}embed_tokens.weight', (v + EXTRA, d)
    yield Tensor(('lm', 'embedder', 'tokens'), *whole, ours=(v, d), axes=(0, 1), at=(slice(0, v),))
    yield Tensor(('extra_tokens', 'input'), *whole, ours=(EXTRA, d), axes=(0, 1), at=(slice(v, None),))
    yield from norm(('lm', 'embedder', 'norm_out'), f'{text}norm', d, bias=False)
    yield matrix(('lm', 'embedder', 'output', 'kernel'), f'{output}weight', d, v)
    gated = [c.first + i * (c.every + 1) for i in range(config.xattn_blocks)]
    others = [i for i in range(lm.depth + len(gated)) if i not in gated]
    for i, layer in enumerate(others):
        yield from llama_layer(
            ('lm', 'blocks', i), f'{text}layers.{layer}.', 'self_attn', 'norm_attention', lm, media=d
        )
    for i, layer in enumerate(gated):
        ours, theirs = ('xattn', i), f'{text}layers.{layer}.'
        yield from llama_layer(ours, theirs, 'cross_attn', 'norm_text', lm, media=d)
        for name in ('query', 'key'):
            yield from norm((*ours, f'norm_{name}'), f'{theirs}cross_attn.{name[0]}_norm', lm.head_dim, bias=False)
        yield vector((*ours, 'alpha_xattn'), f'{theirs}cross_attn_attn_gate', 1, ours=())
        yield vector((*ours, 'alpha_dense'), f'{theirs}cross_attn_mlp_gate', 1, ours=())


def _trunk_tensors(c: MllamaViTConfig) -> Iterator[Tensor]:
    d, rows, split = c.inner, len(ARRANGEMENTS) + 1, (c.heads, c.inner // c.heads)
    yield kernel(('patches', 'kernel'), 'patch_embedding.weight', 3, outputs=d, height=c.patch, width=c.patch)
    yield vector(('class_token',), 'class_embedding', d)
    of_places, shape = 'gated_positional_embedding.', (c.tile_places, d)
    yield vector(('positions',), f'{of_places}embedding', *shape)
    yield vector(('positions_gate',), f'{of_places}gate', 1, ours=())
    flat = TILES * c.tile_places * d
    yield vector(('tile_positions',), f'{of_places}tile_embedding.weight', rows, flat, ours=(rows, TILES, *shape))
    for ours, theirs in (('tiles_in', 'pre'), ('tiles_out', 'post')):
        name = f'{theirs}_tile_positional_embedding.'
        yield vector((ours,), f'{name}embedding.weight', rows, TILES * d, ours=(rows, TILES, 1, d))
        yield vector((f'{ours}_gate',), f'{name}gate', 1, ours=())
    yield from norm(('norm_in',), 'layernorm_pre', d)
    yield from norm(('norm_out',), 'layernorm_post', d)
    for stack, name, depth in (('layers', '', c.depth), ('global_layers', 'global_', c.global_depth)):
        for i in range(depth):
            ours, theirs = (stack, i), f'{name}transformer.layers.{i}.'
            yield from norm((*ours, 'norm_attention'), f'{theirs}input_layernorm', d)
            yield from norm((*ours, 'norm_ffw'), f'{theirs}post_attention_layernorm', d)
            for part in ('query', 'key', 'value'):
                yield matrix((*ours, part, 'kernel'), f'{theirs}self_attn.{part[0]}_proj.weight', d, d, (d, *split))
            yield matrix((*ours, 'out', 'kernel'), f'{theirs}self_attn.o_proj.weight', d, d, (*split, d))
            for part, original, inputs, outputs in (('up', 'fc1', d, c.ffw_width), ('down', 'fc2', c.ffw_width, d)):
                yield matrix((*ours, part, 'kernel'), f'{theirs}mlp.{original}.weight', inputs, outputs)
                yield vector((*ours, part, 'bias'), f'{theirs}mlp.{original}.bias', outputs)
            if name:
                yield vector((*ours, 'gate_attention'), f'{theirs}gate_attn', 1, ours=())
                yield vector((*ours, 'gate_ffw'), f'{theirs}gate_ffn', 1, ours=())
