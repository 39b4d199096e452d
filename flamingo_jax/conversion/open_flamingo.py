"""Reads and writes OpenFlamingo checkpoints (mlfoundations/open_flamingo 2.0).

A published file has only the trained part: the resampler, the gated blocks, and the embeddings with the rows of the new
tokens. Its language model and its CLIP are separate arguments. Differences from the paper, with the fields of the
config:

    gated blocks are before the LM's blocks every - 1, 2 every - 1, ...      `xattn.first`
    no projections in the resampler, no norm of the media                    `projects`, `norm_media`
    no time embeddings, GELU, 8 heads of 64 at every size                    `frames`, `activation`, `heads`, `head_dim`
    <|endofchunk|>, <image> and (if the LM has no padding) <PAD> are new     `extra_tokens`

New ids follow the tokenizer's. The CLIP must be read as in training: patch tokens without the class token, before the
last norm, with QuickGELU (OpenAI's ViT-L/14). open_clip has normed tokens since 2.23 and GELU since 2.29, so that with
it OpenFlamingo gives other results.

In an untied LM (LLaMA, GPT-NeoX), the output's new rows were never trained. Published files have those of GPT-NeoX,
but not those of LLaMA, which OpenFlamingo draws at random on each load. Here they are zeros: the logits of these
tokens are 0.
"""

import dataclasses
import pathlib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from flamingo_jax.conversion import language_model_configs, language_models
from flamingo_jax.conversion.converted import Converted, not_standardised
from flamingo_jax.conversion.hugging_face import open_tensors, open_tokenizer, read_json
from flamingo_jax.conversion.readers import read_weights
from flamingo_jax.conversion.tensors import (
    Empty,
    State,
    Tensor,
    in_memory,
    matrix,
    norm,
    sizes,
    to_state,
    to_tree,
    vector,
)
from flamingo_jax.conversion.vit import read_vit
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.tokenizer import PAD, Tokenizer
from flamingo_jax.model.bridges.gated_xattn import GatedXattnConfig
from flamingo_jax.model.component import differences
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.connectors.perceiver import PerceiverConfig
from flamingo_jax.model.language_model import LanguageModelConfig

# The path of the LM's blocks, by model_type of its config.json.
BLOCKS = {
    'llama': 'model.layers',
    'gpt_neox': 'gpt_neox.layers',
    'mpt': 'transformer.blocks',
    'mosaic_gpt': 'transformer.blocks',
    'opt': 'model.decoder.layers',
}
HEAD_DIM = 64
NEW_TOKENS = ('<|endofchunk|>', '<image>', PAD)
REMEDY = (
    'Give the checkpoint.pt of an OpenFlamingo 2.0 model, the folder of the language model that its page names, and '
    'the '
    'weights of its CLIP.'
)


def convert(
    source: str,
    lm: str,
    clip: str,
    activation: str = '',
    heads: int = 0,
    norm_features: bool = False,
    empty: Empty = in_memory,
    progress: bool = False,
) -> Converted:
    """Reads an OpenFlamingo.

    Args:
      source: the published file, .pt or .safetensors, or a checkpoint of OpenFlamingo's training.
      lm: the Hugging Face folder of its language model.
      clip: the weights of its CLIP, see `conversion/vit.py`.
      activation, heads: of the CLIP, if its file does not give them.
      norm_features: True for a model that was trained with open_clip >= 2.23.
      empty, progress: as for `tensors.to_tree`.

    Raises:
      FileNotFoundError, ValueError: a file is missing, damaged or of another model; the message names it and a remedy.
    """
    folder = pathlib.Path(lm).expanduser()
    fields = read_json(folder / 'config.json')
    where = folder / 'config.json'
    lm_config = language_model_configs.config_of(fields, where)
    model_type = fields['model_type']
    if model_type not in BLOCKS:
        raise UserError(
            f'{where} has model_type {model_type!r}. The language models of OpenFlamingo have {", ".join(BLOCKS)}.'
        )
    vision, trunk = read_vit(clip, 'clip', activation, heads, unsaid='quick_gelu')
    vision = dataclasses.replace(vision, norm_features=norm_features)
    state = {name.removeprefix('module.'): value for name, value in read_weights(source).items()}
    tokenizer = open_tokenizer(folder, fields, lm_config.vocab_size)
    tokens, output = _embeddings(model_type, state)
    try:
        vocab_size, new = _new_tokens(_matrix_shape(state, tokens)[0], tokenizer)
        lm_config = dataclasses.replace(lm_config, vocab_size=vocab_size)
        config = _config(state, BLOCKS[model_type], lm_config, vision=vision, new=new)
        trained = {
            name: value for name, value in state.items() if not name.startswith('lang_encoder.') or '.gated_' in name
        }
        params = to_tree(_tensors(config, BLOCKS[model_type]), trained, empty=empty)
        rest = [name for name in state if name not in trained and name not in (tokens, output)]
        if rest := [name for name in rest if not _of_no_use(name, model_type)]:
            raise UserError(f'unused: {", ".join(sorted(rest)[:10])}')
        tensors, note = _with_embeddings(open_tensors(folder), state, model_type, config)
        for name in (tokens, output):
            if name in state and state[name].shape != (vocab_size + len(new), lm_config.width):
                raise UserError(f'{name} has shape {state[name].shape}, not {(vocab_size + len(new), lm_config.width)}')
    except ValueError as error:
        raise UserError(
            f'{source} with the language model {lm} is not a whole OpenFlamingo: {error}. {REMEDY}'
        ) from error
    try:
        _, params['lm'] = language_models.convert(fields | dict(vocab_size=vocab_size), tensors, empty, progress)
    except ValueError as error:
        raise UserError(f'{folder}: {error}') from error
    params['vision'] = dict(trunk=trunk, **not_standardised(vision.width))
    params['extra_tokens'] = _extra_rows(state, config, model_type)
    report = (
        f'{len(state)} trained tensors loaded, LM from {lm}, trunk from {clip}, nothing missing, nothing unused.{note}'
    )
    card = dict(
        title=f'{pathlib.Path(source).name}, an OpenFlamingo',
        description=f'{report}\nIts licences are those of its parts.',
        tags=['image-text-to-text'],
    )
    return Converted(config, params, tokenizer_of(tokenizer, config), card, image_tag='token', report=report)


def tokenizer_of(tokenizer: Tokenizer, config: FlamingoConfig) -> Tokenizer:
    """The language model's tokenizer with the new tokens of a Flamingo."""
    return Tokenizer(tokenizer.model, 'token', config.lm.vocab_size, config.extra_tokens)


def export(config: FlamingoConfig, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The trained part of a model as an OpenFlamingo state dict, the inverse of `convert` bit for bit.

    Raises:
      ValueError: the model does not fit OpenFlamingo; the message says why.
    """
    model_type = _model_type(config.lm)
    if wrong := [*_unlike(config, 'resampler'), *_unlike(config, 'xattn')]:
        raise UserError(f'This model cannot be written as an OpenFlamingo: {"; ".join(wrong)}.')
    if config.extra_tokens not in (NEW_TOKENS, NEW_TOKENS[:2]):
        raise UserError(
            f'This model cannot be written as an OpenFlamingo, which adds the tokens {NEW_TOKENS[:2]}: '
            f'it adds {config.extra_tokens}.'
        )
    state = to_state(_tensors(config, BLOCKS[model_type]), params)
    tokens, output = _embeddings(model_type, ())
    extra, embedder = params['extra_tokens'], params['lm']['embedder']
    state[tokens] = np.concatenate([np.asarray(embedder['tokens']), np.asarray(extra['input'])])
    if not config.lm.tied and np.asarray(extra['output']).any():
        state[output] = np.concatenate([np.asarray(embedder['output']['kernel']).T, np.asarray(extra['output'])])
    return state


def _model_type(lm: LanguageModelConfig) -> str:
    if lm.positions in ('alibi', 'learned'):
        return 'mpt' if lm.positions == 'alibi' else 'opt'
    return 'llama' if lm.norm == 'rms' else 'gpt_neox'


def _embeddings(model_type: str, state: Collection[str]) -> tuple[str, str]:
    """The names of the LM's input and output embedding; GPT-NeoX's output is lm_head since transformers 5."""
    family = language_models.FAMILIES[model_type]
    outputs = [f'lang_encoder.{name}.weight' for name in (family.names.get('output', 'lm_head'), 'lm_head')]
    output = next((name for name in outputs if name in state), outputs[0])
    return f'lang_encoder.{family.prefixes[0]}{family.names["tokens"]}.weight', output


def _of_no_use(name: str, model_type: str) -> bool:
    """Whether a tensor is a constant of old transformers, or also in the frozen LM: OPT's positions, a tied output."""
    buffers = language_models.FAMILIES[model_type].buffers
    return bool(re.fullmatch(rf'.*({buffers})', name)) or name.endswith('.embed_positions.weight')


def _new_tokens(rows: int, tokenizer: Tokenizer) -> tuple[int, tuple[str, ...]]:
    """(vocabulary of the LM, names of the new tokens).

    New ids follow the tokenizer's; spare rows of the LM are dropped.
    """
    size = tokenizer.size
    if rows - size not in (2, 3):
        raise UserError(
            f'its embedding has {rows} rows, but the tokenizer has {size} tokens, to which OpenFlamingo adds 2 or 3. '
            'It was trained with another language model'
        )
    return size, NEW_TOKENS[: rows - size]


def _matrix_shape(state: State, name: str) -> tuple[int, int]:
    if name not in state:
        raise UserError(f'missing: {name}')
    if len(state[name].shape) != 2:
        raise UserError(f'{name} has shape {state[name].shape}, but must be a matrix')
    return state[name].shape


def _config(state: State, blocks: str, lm: LanguageModelConfig, vision: Any, new: tuple[str, ...]) -> FlamingoConfig:
    gates = re.compile(rf'lang_encoder\.{re.escape(blocks)}\.(\d+)\.gated_cross_attn_layer\.attn_gate')
    places = sorted(int(match[1]) for match in map(gates.fullmatch, state) if match)
    if not places:
        raise UserError(f'missing: lang_encoder.{blocks}.*.gated_cross_attn_layer.attn_gate')
    every = places[0] + 1
    if places != list(range(every - 1, lm.depth, every)):
        raise UserError(
            f'its gated blocks come before the blocks {places} of the language model, which has {lm.depth} blocks: '
            'this does not fit'
        )
    latents, width = _matrix_shape(state, 'perceiver.latents')
    if width != vision.width:
        raise UserError(
            f'its resampler has the width {width}, but the CLIP {vision.width}. It was trained with another CLIP'
        )
    base = f'lang_encoder.{blocks}.{places[0]}.gated_cross_attn_layer.'
    frames = 'perceiver.frame_embs'
    resampler = PerceiverConfig(
        latents=latents,
        width=width,
        depth=sizes(state, 'perceiver.layers.'),
        heads=_matrix_shape(state, 'perceiver.layers.0.0.to_q.weight')[0] // HEAD_DIM,
        ffw_multiplier=_matrix_shape(state, 'perceiver.layers.0.1.1.weight')[0] // width,
        frames=_matrix_shape(state, frames)[0] if frames in state else 0,
        **_RESAMPLER,
    )
    xattn = GatedXattnConfig(
        every=every,
        first=every - 1,
        heads=_matrix_shape(state, base + 'attn.to_q.weight')[0] // HEAD_DIM,
        ffw_multiplier=_matrix_shape(state, base + 'ff.1.weight')[0] // lm.width,
        **_XATTN,
    )
    return FlamingoConfig(
        lm=lm,
        vision=vision,
        resampler=resampler,
        xattn=xattn,
        image_tag=(lm.vocab_size + 1,),
        extra_tokens=new,
        extra_tied=lm.tied,
        image_size=vision.resolution,
    )


# What OpenFlamingo models of all sizes have unlike the paper, and the fields in which they differ.
_RESAMPLER: dict[str, Any] = dict(projects=False, activation='gelu', head_dim=HEAD_DIM)
_XATTN: dict[str, Any] = dict(norm_media=False, activation='gelu', head_dim=HEAD_DIM)
_DIFFER: dict[str, Any] = dict(
    resampler=('latents', 'width', 'depth', 'heads', 'ffw_multiplier', 'frames'),
    xattn=('every', 'heads', 'ffw_multiplier', 'initial_alpha', 'initial_alpha_dense'),
)


def _unlike(config: FlamingoConfig, part: str) -> Iterator[str]:
    """The fields in which the resampler or the gated blocks are none of an OpenFlamingo of these sizes."""
    ours = getattr(config, part)
    fields = ours.to_json() if ours else {}
    sizes = {name: value for name, value in fields.items() if name in _DIFFER[part]}
    if part == 'resampler':
        theirs = PerceiverConfig(**_RESAMPLER, **sizes)
    else:
        theirs = GatedXattnConfig(**_XATTN, **sizes, first=sizes.get('every', 1) - 1)
    return differences(fields, theirs.to_json(), f'{part}.')


def _with_embeddings(
    tensors: dict[str, np.ndarray], state: State, model_type: str, config: FlamingoConfig
) -> tuple[dict[str, np.ndarray], str]:
    """The LM's tensors with the checkpoint's embeddings, cut to the tokenizer's size; and a note if they differ."""
    family, note, v = language_models.FAMILIES[model_type], '', config.lm.vocab_size
    tensors = dict(tensors)
    for ours, theirs in zip(('tokens', 'output'), _embeddings(model_type, state), strict=True):
        names = [f'{prefix}{family.names.get(ours, "lm_head")}.weight' for prefix in (*family.prefixes, '')]
        name = next((name for name in names if name in tensors), None)
        if name is None:
            continue
        if ours == 'output' and config.lm.tied:
            del tensors[name]  # The embedding again.
            continue
        before = tensors[name][:v]
        tensors[name] = (state[theirs] if theirs in state else tensors[name])[:v]
        if before.shape == tensors[name].shape and theirs in state:
            rows = _rows_that_differ(before, tensors[name])
            if rows:
                note += f' NOTE: {rows} of {v} rows of {theirs} differ from those of the language model.'
    return tensors, note


def _rows_that_differ(a: np.ndarray, b: np.ndarray) -> int:
    """The number of rows that differ by more than bfloat16's rounding."""
    count, at_once = 0, 4096
    for begin in range(0, len(a), at_once):
        x, y = (np.asarray(part[begin : begin + at_once], np.float32) for part in (a, b))
        count += int((np.abs(x - y).max(axis=1) > 0.01 * np.abs(x).max(axis=1) + 1e-6).sum())
    return count


def _extra_rows(state: State, config: FlamingoConfig, model_type: str) -> dict[str, np.ndarray]:
    tokens, output = _embeddings(model_type, state)
    v = config.lm.vocab_size
    rows: dict[str, Any] = dict(input=np.array(state[tokens][v:]))
    if not config.extra_tied:
        rows['output'] = np.array(state[output][v:]) if output in state else np.zeros_like(rows['input'])
    return rows


def _tensors(config: FlamingoConfig, blocks: str) -> Iterator[Tensor]:
    """The resampler and the gated blocks."""
    c, d = config.resampler, config.resampler.width
    yield vector(('resampler', 'latents'), 'perceiver.latents', c.latents, d)
    if c.frames:
        yield vector(('resampler', 'time'), 'perceiver.frame_embs', c.frames, d)
    yield from norm(('resampler', 'norm_out'), 'perceiver.norm', d)
    for i in range(c.depth):
        ours, theirs = ('resampler', 'layers', i), f'perceiver.layers.{i}'
        yield from norm((*ours, 'norm_features'), f'{theirs}.0.norm_media', d)
        yield from norm((*ours, 'norm_latents'), f'{theirs}.0.norm_latents', d)
        yield from _attention_and_ffw(ours, f'{theirs}.0', f'{theirs}.1', c=c, d=d, media=d)
    x, d = config.xattn, config.lm.width
    for i in range(config.xattn_blocks):
        ours, theirs = ('xattn', i), f'lang_encoder.{blocks}.{x.first + i * x.every}.gated_cross_attn_layer'
        yield vector((*ours, 'alpha_xattn'), f'{theirs}.attn_gate', 1, ours=())
        yield vector((*ours, 'alpha_dense'), f'{theirs}.ff_gate', 1, ours=())
        yield from norm((*ours, 'norm_text'), f'{theirs}.attn.norm', d)
        yield from _attention_and_ffw(ours, f'{theirs}.attn', f'{theirs}.ff', c=x, d=d, media=config.media_width)


def _attention_and_ffw(
    ours: tuple[str | int, ...], attention: str, ffw: str, c: PerceiverConfig | GatedXattnConfig, d: int, media: int
) -> Iterator[Tensor]:
    """Tensors that a resampler layer and a gated block share: queries read width d, keys and values width `media`."""
    heads, inner, hidden = (c.heads, c.head_dim), c.heads * c.head_dim, c.ffw_multiplier * d
    yield matrix((*ours, 'query', 'kernel'), f'{attention}.to_q.weight', d, outputs=inner, ours=(d, *heads))
    for part, name in enumerate(('key', 'value')):
        shape: dict[str, Any] = dict(outputs=inner, ours=(media, *heads), part=part, parts=2)
        yield matrix((*ours, name, 'kernel'), f'{attention}.to_kv.weight', media, **shape)
    yield matrix((*ours, 'out', 'kernel'), f'{attention}.to_out.weight', inner, outputs=d, ours=(*heads, d))
    yield from norm((*ours, 'norm_ffw'), f'{ffw}.0', d)
    yield matrix((*ours, 'ffw', 'up', 'kernel'), f'{ffw}.1.weight', d, hidden)
    yield matrix((*ours, 'ffw', 'down', 'kernel'), f'{ffw}.3.weight', hidden, d)
