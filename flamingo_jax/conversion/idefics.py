"""Reads and writes IDEFICS: HuggingFaceM4/idefics-9b, -80b, and their -instruct versions.

In transformers it is IdeficsForVisionText2Text.

Everything is in one Hugging Face folder. Differences from the paper, with the fields of the config for them:

    the LM is a LLaMA; two or three new tokens have embeddings of their own   `extra_tokens`
    text norms are RMS norms                                                  `xattn.norm`
    the gated feed-forward is a SwiGLU of the LM's width                      `gated_ffw`, `ffw_width`
    queries and keys have norms: RMS in the blocks, layer in the resampler    `qk_norms`
    alphas may be vectors                                                     `vector_alphas`
    no projections in the resampler, no time embeddings, ReLU; or none        `projects`, `frames`, `activation`
    the features are all tokens of the CLIP (ViT-H/14), with the class token, before its last norm
    an image is squashed to a square, and written <fake_token_around_image><image><fake_token_around_image>

In both, text before the first image gets nothing from the cross-attention. Of the tokens that stand for an image,
the tag <image> is the first that sees it.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

from flamingo_jax.conversion import language_model_configs
from flamingo_jax.conversion.converted import Converted, not_standardised
from flamingo_jax.conversion.folders import (
    BUFFERS,
    NAMES,
    card_of,
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
from flamingo_jax.conversion.tensors import Empty, Tensor, in_memory, matrix, norm, to_tree, vector
from flamingo_jax.conversion.vit import vit_tensors
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.tokenizer import AROUND, IMAGE, Tokenizer
from flamingo_jax.model.bridges.gated_xattn import GatedXattnConfig
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.connectors.perceiver import PerceiverConfig
from flamingo_jax.model.vision.vit import ViTConfig

NEW_TOKENS = (AROUND, IMAGE, '<end_of_utterance>')
VISION = 'model.vision_model.'
REMEDY = 'Give a folder of HuggingFaceM4/idefics-9b, -80b, -9b-instruct or -80b-instruct, or one fine-tuned from these.'


def convert(source: str, empty: Empty = in_memory, progress: bool = False) -> Converted:
    """Reads an IDEFICS from its Hugging Face folder, in the dtypes of its tensors.

    Args:
      source: the folder.
      empty, progress: as for `tensors.to_tree`.

    Raises:
      FileNotFoundError, ValueError: a file is missing, damaged or of another model; the message names it and a remedy.
    """
    folder = pathlib.Path(source).expanduser()
    fields = read_json(folder / 'config.json')
    with reading(folder, 'IDEFICS', REMEDY):
        with reading_config():
            config = config_of(fields)
        tokenizer = _open_tokenizer(folder, fields, config)
        config = dataclasses.replace(config, image_tag=tokenizer.image_tag, extra_tokens=tokenizer.extra_tokens)
        state = open_tensors(folder)
        constants = [name for name in state if BUFFERS.fullmatch(name)]
        params = to_tree(tensors_of(config), state, constants, empty=empty, progress=progress)
    params['vision'] |= not_standardised(config.vision.width)
    return Converted(config, params, tokenizer, card_of(folder, 'an IDEFICS'), image_tag='token')


def config_of(fields: Mapping[str, Any]) -> FlamingoConfig:
    """The config of a config.json, still without the names of the extra tokens, which are in the tokenizer."""
    if fields.get('model_type') != 'idefics':
        raise UserError(f"its config.json has model_type {fields.get('model_type')!r}, not 'idefics'")
    defaults: dict[str, Any] = dict(vocab_size=32_000, hidden_size=4096, intermediate_size=11_008, num_hidden_layers=32)
    fields = defaults | dict(num_attention_heads=32) | dict(fields)
    # A LLaMA's config may have grouped queries, which transformers' IDEFICS does not support.
    lm = language_model_configs.config_of(dict(fields, model_type='llama', num_key_value_heads=None, head_dim=None))
    seen, p = (cast(dict[str, Any], fields.get(part) or {}) for part in ('vision_config', 'perceiver_config'))
    width = seen.get('embed_dim', 768)
    vision = ViTConfig(
        width=width,
        depth=seen.get('num_hidden_layers', 32),
        heads=seen.get('num_attention_heads', 16),
        ffw_width=seen.get('intermediate_size', 5120),
        patch=seen.get('patch_size', 14),
        resolution=seen.get('image_size', 224),
        activation=activation_of(seen.get('hidden_act', 'gelu')),
        norm_eps=seen.get('layer_norm_eps', 1e-5),
        class_feature=True,
        fit='squash',
    )
    resampler = PerceiverConfig(
        latents=p.get('resampler_n_latents', 64),
        width=width,
        depth=p.get('resampler_depth', 6),
        heads=p.get('resampler_n_heads', 16),
        head_dim=p.get('resampler_head_dim', 96),
        frames=0,
        projects=False,
        activation='relu',
        qk_norms=p.get('qk_layer_norms_perceiver', False),
    )
    every = fields.get('cross_layer_interval', 1)
    if lm.depth % every:
        raise UserError(
            f'its {lm.depth} layers are not a multiple of cross_layer_interval = {every}, as IDEFICS requires'
        )
    xattn = GatedXattnConfig(
        every=every,
        heads=lm.heads,
        head_dim=lm.head_dim,
        norm='rms',
        norm_eps=lm.norm_eps,
        norm_media=False,
        qk_norms=fields.get('qk_layer_norms', False),
        activation=lm.activation,
        gated_ffw=True,
        ffw_width=lm.ffw_width,
        vector_alphas=fields.get('alpha_type', 'float') == 'vector',
    )
    return FlamingoConfig(
        lm=lm,
        vision=vision,
        resampler=resampler if fields.get('use_resampler', False) else None,
        xattn=xattn,
        extra_tokens=tuple(f'<extra_{i}>' for i in range(fields.get('additional_vocab_size', 0))),
        extra_tied=lm.tied,
        image_size=vision.resolution,
    )


def fields_of(config: FlamingoConfig) -> dict[str, Any]:
    """The config.json of a model, the inverse of `config_of`. ValueError says why a model does not fit IDEFICS."""
    lm, vision, resampler, xattn = config.lm, config.vision, config.resampler, config.xattn
    if not (isinstance(vision, ViTConfig) and isinstance(xattn, GatedXattnConfig)):
        raise UserError(
            'This model cannot be written as an IDEFICS: its trunk is not a vision transformer, or it '
            'has no gated blocks.'
        )
    fields: dict[str, Any] = dict(
        architectures=['IdeficsForVisionText2Text'],
        model_type='idefics',
        vocab_size=lm.vocab_size,
        additional_vocab_size=len(config.extra_tokens),
        hidden_size=lm.width,
        intermediate_size=lm.ffw_width,
        num_hidden_layers=lm.depth,
        num_attention_heads=lm.heads,
        hidden_act=NAMES[lm.activation],
        rms_norm_eps=lm.norm_eps,
        max_position_embeddings=lm.context,
        rope_theta=lm.rotary_base,
        rope_parameters=dict(rope_type='default', rope_theta=lm.rotary_base),
        tie_word_embeddings=lm.tied,
        cross_layer_interval=xattn.every,
        qk_layer_norms=xattn.qk_norms,
        alpha_type='vector' if xattn.vector_alphas else 'float',
        use_resampler=resampler is not None,
        vision_config=dict(
            model_type='idefics_vision',
            embed_dim=vision.width,
            num_hidden_layers=vision.depth,
            num_attention_heads=vision.heads,
            intermediate_size=vision.ffw_width,
            patch_size=vision.patch,
            image_size=vision.resolution,
            hidden_act=NAMES[vision.activation],
            layer_norm_eps=vision.norm_eps,
        ),
    )
    if resampler is not None:
        fields['perceiver_config'] = dict(
            use_resampler=True,
            resampler_n_latents=resampler.latents,
            resampler_depth=resampler.depth,
            resampler_n_heads=resampler.heads,
            resampler_head_dim=resampler.head_dim,
            qk_layer_norms_perceiver=resampler.qk_norms,
        )
    same = dataclasses.replace(config_of(fields), image_tag=config.image_tag, extra_tokens=config.extra_tokens)
    refuse_other(config, dataclasses.replace(same, image_size=config.image_size), 'an IDEFICS')
    return fields


def _open_tokenizer(folder: pathlib.Path, fields: Mapping[str, Any], config: FlamingoConfig) -> Tokenizer:
    """The folder's tokenizer. Its tokens beyond the LM's vocabulary become the extra tokens."""
    v, count = config.lm.vocab_size, len(config.extra_tokens)
    path = folder / 'tokenizer.json'
    if path.is_file():
        content, added = without_tokens(path, v)
        if sorted(added) != list(range(v, v + count)):
            raise UserError(
                f'{path} has the tokens {added} beyond the vocabulary of {v}, but config.json has '
                f'additional_vocab_size = {count}'
            )
        names = [added[i] for i in sorted(added)]
        model = json.dumps(dict(roles=roles(folder, fields)) | content, ensure_ascii=False).encode()
    elif (folder / 'tokenizer.model').is_file():
        path = folder / 'tokenizer.model'
        names, model = NEW_TOKENS[:count], path.read_bytes()
    else:
        raise FileNotFoundError(f'{folder} has no tokenizer.json and no tokenizer.model. Download one of them.')
    if IMAGE not in names:
        raise UserError(f'{path} has no token {IMAGE} among the {count} tokens beyond its vocabulary of {v}')
    try:
        return Tokenizer(model, 'token', v, names)
    except Exception as error:  # Both libraries have error types of their own.
        raise UserError(f'{path} cannot be read ({error})') from error


def write_processor(folder: pathlib.Path, config: FlamingoConfig, tokenizer: Tokenizer) -> None:
    """Writes what transformers' AutoProcessor reads: how images are prepared, and the tokenizer."""
    vision = cast(ViTConfig, config.vision)
    common: dict[str, Any] = dict(processor_class='IdeficsProcessor')
    images = common | dict(
        image_processor_type='IdeficsImageProcessor',
        image_size=config.image_size,
        image_num_channels=3,
        image_mean=vision.mean,
        image_std=vision.std,
    )
    texts = common | tokenizer_settings(tokenizer) | dict(additional_special_tokens=tokenizer.extra_tokens)
    extra = {name: i for i, name in enumerate(tokenizer.extra_tokens, tokenizer.vocab_size)}
    model = tokenizer.model
    if tokenizer.file == 'tokenizer.json':
        content = with_tokens(tokenizer, extra)
        model = json.dumps(content, ensure_ascii=False).encode()
    else:
        # `legacy` puts LLaMA's space before every text that follows an image, and not only before the first.
        texts |= dict(tokenizer_class='LlamaTokenizer', legacy=True)
        write_json(folder / 'added_tokens.json', extra)
    (folder / tokenizer.file).write_bytes(model)
    write_json(folder / 'preprocessor_config.json', images)
    write_json(folder / 'tokenizer_config.json', texts)


def tensors_of(config: FlamingoConfig) -> Iterator[Tensor]:
    """All tensors of an IDEFICS."""
    lm, d = config.lm, config.lm.width
    extra = len(config.extra_tokens)
    yield vector(('lm', 'embedder', 'tokens'), 'model.embed_tokens.weight', lm.vocab_size, d)
    yield from norm(('lm', 'embedder', 'norm_out'), 'model.norm', d, bias=False)
    if extra:
        yield vector(('extra_tokens', 'input'), 'model.embed_tokens.additional_embedding.weight', extra, d)
    if not lm.tied:
        yield matrix(('lm', 'embedder', 'output', 'kernel'), 'lm_head.weight', d, lm.vocab_size)
        if extra:
            yield vector(('extra_tokens', 'output'), 'lm_head.additional_fc.weight', extra, d)
    for i in range(lm.depth):
        ours, theirs = ('lm', 'blocks', i), f'model.layers.{i}.'
        yield from llama_layer(ours, theirs, 'self_attn', 'norm_attention', lm, media=d)
    for tensor in vit_tensors(config.vision, 'transformers', VISION):
        yield dataclasses.replace(tensor, path=('vision', 'trunk', *tensor.path))
    if config.resampler is not None:
        yield from _resampler_tensors(cast(PerceiverConfig, config.resampler))
    c = cast(GatedXattnConfig, config.xattn)
    alpha = (1, 1, d) if c.vector_alphas else (1,)
    for i in range(config.xattn_blocks):
        ours, theirs = ('xattn', i), f'model.gated_cross_attn_layers.{i}.'
        for name, original in (('alpha_xattn', 'alpha_cross_attn'), ('alpha_dense', 'alpha_dense')):
            yield vector((*ours, name), f'{theirs}{original}', *alpha, ours=(d,) if c.vector_alphas else ())
        yield from llama_layer(ours, theirs, 'cross_attn', 'norm_text', lm, media=config.media_width)
        if c.qk_norms:
            yield from norm((*ours, 'norm_query'), f'{theirs}cross_attn.q_layer_norm', lm.head_dim, bias=False)
            yield from norm((*ours, 'norm_key'), f'{theirs}cross_attn.k_layer_norm', lm.head_dim, bias=False)


def _resampler_tensors(c: PerceiverConfig) -> Iterator[Tensor]:
    d, heads, inner = c.width, (c.heads, c.head_dim), c.heads * c.head_dim
    yield vector(('resampler', 'latents'), 'model.perceiver_resampler.latents', c.latents, d)
    yield from norm(('resampler', 'norm_out'), 'model.perceiver_resampler.layer_norm', d)
    for i in range(c.depth):
        ours, theirs = ('resampler', 'layers', i), f'model.perceiver_resampler.blocks.{i}'
        yield from norm((*ours, 'norm_features'), f'{theirs}.0.context_layer_norm', d)
        yield from norm((*ours, 'norm_latents'), f'{theirs}.0.latents_layer_norm', d)
        if c.qk_norms:
            yield from norm((*ours, 'norm_query'), f'{theirs}.0.q_layer_norm', c.head_dim)
            yield from norm((*ours, 'norm_key'), f'{theirs}.0.k_layer_norm', c.head_dim)
        for name in ('query', 'key', 'value'):
            yield matrix(
                (*ours, name, 'kernel'), f'{theirs}.0.{name[0]}_proj.weight', d, outputs=inner, ours=(d, *heads)
            )
        yield matrix((*ours, 'out', 'kernel'), f'{theirs}.0.output_proj.weight', inner, outputs=d, ours=(*heads, d))
        yield from norm((*ours, 'norm_ffw'), f'{theirs}.1.ln', d)
        yield matrix((*ours, 'ffw', 'up', 'kernel'), f'{theirs}.1.fc.weight', d, c.ffw_multiplier * d)
        yield matrix((*ours, 'ffw', 'down', 'kernel'), f'{theirs}.1.c_proj.weight', c.ffw_multiplier * d, d)
