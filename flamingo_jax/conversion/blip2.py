"""Reads and writes BLIP-2 with an OPT (Li et al. 2023): Salesforce/blip2-opt-2.7b, -6.7b and their -coco versions.

In transformers it is Blip2ForConditionalGeneration. Everything is in one Hugging Face folder:

    trunk      EVA's ViT-g, with its class token, after the last norm                      `ViTConfig`
    Q-Former   a BERT of learnt queries, and a linear map to the language model            `BertQFormerConfig`
    text       an OPT, in which an image is 32 times `<image>`, a token of its vocabulary  `PrefixConfig`

Images at the beginning of a prompt come before the beginning's token `</s>`.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

from flamingo_jax.conversion import language_model_configs, language_models
from flamingo_jax.conversion.converted import Converted, not_standardised
from flamingo_jax.conversion.folders import (
    NAMES,
    card_of,
    reading,
    reading_config,
    refuse_other,
    roles_of,
    tokenizer_settings,
    with_tokens,
    write_json,
)
from flamingo_jax.conversion.hugging_face import activation_of, open_tensors, open_tokenizer, read_json
from flamingo_jax.conversion.tensors import Empty, Tensor, in_memory, kernel, matrix, norm, to_tree, vector
from flamingo_jax.conversion.vit import preprocessor, said_by_preprocessor
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.tokenizer import IMAGE, Tokenizer
from flamingo_jax.model.bridges.prefix import PrefixConfig
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.connectors.bert_qformer import BertQFormerConfig
from flamingo_jax.model.vision.vit import ViTConfig

REMEDY = 'Give a folder of Salesforce/blip2-opt-2.7b or -6.7b, or another of Blip2ForConditionalGeneration with an OPT.'
OPT: dict[str, Any] = dict(
    model_type='opt',
    vocab_size=50_272,
    hidden_size=768,
    num_hidden_layers=12,
    ffn_dim=3072,
    num_attention_heads=12,
    max_position_embeddings=2048,
)


def convert(source: str, empty: Empty = in_memory, progress: bool = False) -> Converted:
    """Reads a BLIP-2 from its Hugging Face folder, in the dtypes of its tensors.

    Args:
      source: the folder.
      empty, progress: as for `tensors.to_tree`.

    Raises:
      FileNotFoundError, ValueError: a file is missing, damaged or of another model; the message names it and a remedy.
    """
    folder = pathlib.Path(source).expanduser()
    fields = read_json(folder / 'config.json')
    with reading(folder, 'BLIP-2', REMEDY):
        with reading_config():
            images = preprocessor(folder)
            config = config_of(fields, said_by_preprocessor(images))
            side, size = config.image_size, images.get('size')
            if size and set(size.values() if isinstance(size, dict) else [size]) != {side}:
                raise UserError(f'its images have the size {size}, but its trunk is for {side} pixels')
        tokenizer = _open_tokenizer(folder, fields, config)
        state = open_tensors(folder)
        leftover = [name for name in state if name.startswith('language_model.lm_head.')] if config.lm.tied else []
        params = to_tree(tensors_of(config), state, leftover, empty=empty, progress=progress)
    params['vision'] |= not_standardised(config.vision.width)
    return Converted(config, params, tokenizer, card_of(folder, 'a BLIP-2'), config.image_tag)


def config_of(fields: Mapping[str, Any], said: Mapping[str, Any]) -> FlamingoConfig:
    """The config of a config.json, and of what the preprocessor's file says of images (`mean`, `std`)."""
    if fields.get('model_type') != 'blip-2':
        raise UserError(f"its config.json has model_type {fields.get('model_type')!r}, not 'blip-2'")
    text, seen, asks = (dict(fields.get(f'{part}_config') or {}) for part in ('text', 'vision', 'qformer'))
    if text.get('model_type', 'opt') != 'opt':
        raise UserError(f'its language model is a {text["model_type"]!r}, and only an opt is supported')
    if asks.get('use_qformer_text_input', False) or not seen.get('qkv_bias', True):
        raise UserError('its Q-Former reads text, or its trunk has no biases of queries and values')
    lm = language_model_configs.config_of(OPT | {name: value for name, value in text.items() if value is not None})
    vision = ViTConfig(
        width=seen.get('hidden_size', 1408),
        depth=seen.get('num_hidden_layers', 39),
        heads=seen.get('num_attention_heads', 16),
        ffw_width=seen.get('intermediate_size', 6144),
        patch=seen.get('patch_size', 14),
        resolution=seen.get('image_size', 224),
        activation=activation_of(seen.get('hidden_act', 'gelu')),
        norm_eps=seen.get('layer_norm_eps', 1e-6),
        norm_in=False,
        patch_bias=True,
        norm_features=True,
        class_feature=True,
        **{name: said[name] for name in ('mean', 'std') if name in said},
        fit='squash',
    )
    connector = BertQFormerConfig(
        latents=fields.get('num_query_tokens', 32),
        width=asks.get('hidden_size', 768),
        depth=asks.get('num_hidden_layers', 12),
        heads=asks.get('num_attention_heads', 12),
        ffw_width=asks.get('intermediate_size', 3072),
        every=asks.get('cross_attention_frequency', 2),
        activation=activation_of(asks.get('hidden_act', 'gelu')),
        norm_eps=asks.get('layer_norm_eps', 1e-12),
    )
    image = fields.get('image_token_index')
    if type(image) is not int or not 0 <= image < lm.vocab_size:
        raise UserError(
            f'its image_token_index is {image!r}, not one of the {lm.vocab_size} tokens of its language model '
            '(a folder of before 2024 has none)'
        )
    tag = (image,) * connector.latents
    return FlamingoConfig(
        lm, vision, connector, PrefixConfig(with_positions=True), image_tag=tag, image_size=vision.resolution
    )


def fields_of(config: FlamingoConfig) -> dict[str, Any]:
    """The config.json of a model, the inverse of `config_of`. ValueError says why a model does not fit BLIP-2."""
    lm, vision, asks = config.lm, config.vision, config.resampler
    fits = isinstance(vision, ViTConfig) and isinstance(asks, BertQFormerConfig)
    if not fits or not isinstance(config.xattn, PrefixConfig) or config.extra_tokens:
        raise UserError('This model cannot be written as a BLIP-2: its trunk, its connector or its bridge is another.')
    vision, asks = cast(ViTConfig, vision), cast(BertQFormerConfig, asks)

    def layers(c: Any, width: int) -> dict[str, Any]:
        sizes = dict(hidden_size=width, num_hidden_layers=c.depth, num_attention_heads=c.heads)
        return sizes | dict(hidden_act=NAMES.get(c.activation), layer_norm_eps=c.norm_eps)

    text = dict(vocab_size=lm.vocab_size, ffn_dim=lm.ffw_width, word_embed_proj_dim=lm.width)
    text |= dict(max_position_embeddings=lm.context, activation_function=NAMES.get(lm.activation))
    of_trunk = dict(intermediate_size=vision.ffw_width, patch_size=vision.patch, image_size=vision.resolution)
    of_asks = dict(intermediate_size=asks.ffw_width, cross_attention_frequency=asks.every)
    fields: dict[str, Any] = dict(
        architectures=['Blip2ForConditionalGeneration'],
        model_type='blip-2',
        image_token_index=config.image_tag[0],
        num_query_tokens=asks.latents,
        use_decoder_only_language_model=True,
        text_config=layers(lm, lm.width) | dict(model_type='opt', tie_word_embeddings=lm.tied) | text,
        vision_config=layers(vision, vision.width) | dict(model_type='blip_2_vision_model') | of_trunk,
        qformer_config=layers(asks, asks.width)
        | dict(model_type='blip_2_qformer', encoder_hidden_size=vision.width)
        | of_asks,
    )
    refuse_other(config, config_of(fields, dict(mean=vision.mean, std=vision.std)), 'a BLIP-2')
    return fields


def tensors_of(config: FlamingoConfig) -> Iterator[Tensor]:
    """All tensors of a BLIP-2, by their names in the published files."""
    for tensor in language_models.tensors_of(language_models.FAMILIES['opt'], config.lm, 'model.decoder.'):
        yield dataclasses.replace(tensor, path=('lm', *tensor.path), name=f'language_model.{tensor.name}')
    yield from _trunk_tensors(cast(ViTConfig, config.vision))
    c, d_v = cast(BertQFormerConfig, config.resampler), config.vision.width
    d, split = c.width, (c.heads, c.head_dim)
    yield vector(('resampler', 'latents'), 'query_tokens', 1, c.latents, d, ours=(c.latents, d))
    yield from norm(('resampler', 'norm_in'), 'qformer.layernorm', d)
    for i in range(c.depth):
        (group, j), theirs = divmod(i, c.every), f'qformer.encoder.layer.{i}.'
        ours = 'resampler', 'layers', group
        kinds = [(f'self_{j}', 'attention', d), *([] if j else [('cross', 'crossattention', d_v)])]
        for kind, name, media in kinds:
            for part, inputs in (('query', d), ('key', media), ('value', media)):
                linear = f'{theirs}{name}.attention.{part}.'
                yield matrix((*ours, f'{kind}_{part}', 'kernel'), f'{linear}weight', inputs, d, (inputs, *split))
                yield vector((*ours, f'{kind}_{part}', 'bias'), f'{linear}bias', d, ours=split)
            out = f'{theirs}{name}.output.'
            yield from _linear((*ours, f'{kind}_out'), f'{out}dense', d, d, (*split, d))
            yield from norm((*ours, f'{kind}_norm'), f'{out}LayerNorm', d)
        yield from _linear((*ours, f'up_{j}'), f'{theirs}intermediate_query.dense', d, c.ffw_width)
        yield from _linear((*ours, f'down_{j}'), f'{theirs}output_query.dense', c.ffw_width, d)
        yield from norm((*ours, f'ffw_{j}_norm'), f'{theirs}output_query.LayerNorm', d)
    yield from _linear(('resampler', 'project_out'), 'language_projection', d, config.lm.width)


def _linear(path: Any, name: str, inputs: int, outputs: int, ours: tuple[int, ...] = ()) -> Iterator[Tensor]:
    yield matrix((*path, 'kernel'), f'{name}.weight', inputs, outputs, ours)
    yield vector((*path, 'bias'), f'{name}.bias', outputs)


def _trunk_tensors(c: ViTConfig) -> Iterator[Tensor]:
    d, n, split, ours = c.width, c.grid**2 + 1, (c.heads, c.width // c.heads), ('vision', 'trunk')
    embeddings = 'vision_model.embeddings.'
    patches = f'{embeddings}patch_embedding.'
    yield kernel((*ours, 'patches', 'kernel'), f'{patches}weight', 3, outputs=d, height=c.patch, width=c.patch)
    yield vector((*ours, 'patches', 'bias'), f'{patches}bias', d)
    yield vector((*ours, 'class_token'), f'{embeddings}class_embedding', 1, 1, d, ours=(d,))
    yield vector((*ours, 'positions'), f'{embeddings}position_embedding', 1, n, d, ours=(n, d))
    yield from norm((*ours, 'norm_out'), 'vision_model.post_layernorm', d)
    for i in range(c.depth):
        layer, theirs = (*ours, 'layers', i), f'vision_model.encoder.layers.{i}.'
        yield from norm((*layer, 'norm_attention'), f'{theirs}layer_norm1', d)
        yield from norm((*layer, 'norm_ffw'), f'{theirs}layer_norm2', d)
        for j, part in enumerate(('query', 'key', 'value')):
            fused = f'{theirs}self_attn.qkv.'
            yield matrix((*layer, part, 'kernel'), f'{fused}weight', d, d, (d, *split), part=j, parts=3)
            rows = (slice(j * d, (j + 1) * d),)
            yield Tensor((*layer, part, 'bias'), f'{fused}bias', (3 * d,), ours=split, axes=(0,), at=rows)
        yield from _linear((*layer, 'out'), f'{theirs}self_attn.projection', d, d, (*split, d))
        yield from _linear((*layer, 'up'), f'{theirs}mlp.fc1', d, c.ffw_width)
        yield from _linear((*layer, 'down'), f'{theirs}mlp.fc2', c.ffw_width, d)


def _open_tokenizer(folder: pathlib.Path, fields: Mapping[str, Any], config: FlamingoConfig) -> Tokenizer:
    """The folder's tokenizer, in which the image's token is one of the language model's own."""
    read_json(folder / 'tokenizer.json')  # No other file has the image's token.
    said = dict(fields['text_config']) | {name: value for name, value in fields.items() if value is not None}
    tokenizer, image = open_tokenizer(folder, said, config.lm.vocab_size), config.image_tag[0]
    if image >= tokenizer.size or tokenizer.name(image) != IMAGE:
        raise UserError(f'its image_token_index is {image}, but in its tokenizer.json that is not {IMAGE}')
    content = json.loads(tokenizer.model)
    content['roles'] |= dict(begin_after_images=True)
    return Tokenizer(json.dumps(content, ensure_ascii=False).encode(), config.image_tag, config.lm.vocab_size)


def write_processor(folder: pathlib.Path, config: FlamingoConfig, tokenizer: Tokenizer) -> None:
    """Writes what transformers' AutoProcessor reads: how images are prepared, and the tokenizer."""
    vision, common = cast(ViTConfig, config.vision), dict(processor_class='Blip2Processor')
    size = dict(height=config.image_size, width=config.image_size)
    images: dict[str, Any] = dict(image_processor_type='BlipImageProcessor', size=size, resample=3)
    images |= dict(image_mean=vision.mean, image_std=vision.std)
    write_json(folder / 'tokenizer.json', with_tokens(tokenizer, {}))
    write_json(folder / 'tokenizer_config.json', common | tokenizer_settings(tokenizer))
    write_json(folder / 'generation_config.json', roles_of(tokenizer))
    write_json(folder / 'preprocessor_config.json', common | images)
    write_json(folder / 'processor_config.json', common | dict(num_query_tokens=config.media_tokens))
