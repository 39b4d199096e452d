"""A GGUF file as a language model: its keys as the fields of a config.json, its tensors in their original form.

    FILE.gguf    `read_model`    Model(fields, tensors, tokenizer)

llama.cpp's writers change some tensors: the rows of LLaMA's queries and keys are in the order of rotated pairs, and
Gemma's norms have 1 added. Both are undone here. Settings that are built into llama.cpp and missing from the keys are
added.

Sources: convert_hf_to_gguf.py and the model files of llama.cpp; the fields are those of transformers 5.24.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from flamingo_jax.conversion.gguf_reader import Quantised, read_gguf
from flamingo_jax.conversion.language_model_tokenizers import read_tokenizer
from flamingo_jax.conversion.language_models import Family
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.tokenizer import Tokenizer

# As in `language_models.FAMILIES`. A file has the tensors that its model needs.
NAMES = {
    'tokens': 'token_embd',
    'norm_out': 'output_norm',
    'output': 'output',
    'norm_attention': 'blk.*.attn_norm',
    'norm_query': 'blk.*.attn_q_norm',
    'norm_key': 'blk.*.attn_k_norm',
    'query': 'blk.*.attn_q',
    'key': 'blk.*.attn_k',
    'value': 'blk.*.attn_v',
    'out': 'blk.*.attn_output',
    'norm_attended': 'blk.*.post_attention_norm',
    'norm_ffw': 'blk.*.ffn_norm',
    'norm_fed': 'blk.*.post_ffw_norm',
    'ffw/up': 'blk.*.ffn_gate',
    'ffw/gate': 'blk.*.ffn_up',
    'ffw/down': 'blk.*.ffn_down',
}
FAMILY = Family(NAMES, ('',), buffers=r'rope_freqs\.weight')

# general.architecture -> model_type.
KINDS = {
    'llama': 'llama',
    'qwen2': 'qwen2',
    'qwen3': 'qwen3',
    'gemma': 'gemma',
    'gemma2': 'gemma2',
    'gemma3': 'gemma3_text',
}
# Keys of descendants that compute something else, with the value that has no effect.
NEUTRAL = {
    'expert_count': 0,
    'logit_scale': 1.0,
    'embedding_scale': 1.0,
    'residual_scale': 1.0,
    'attention.clamp_kqv': 0.0,
    'attention.causal': True,
}
SCALED = ('gemma2', 'gemma3')  # Their queries have a special scale, and some blocks have windows.
# Depth of the 27B Gemma 2 and 3, whose scale follows from the width.
SCALED_BY_WIDTH = {('gemma2', 46), ('gemma3', 62)}
# LLaMA 3.1 to 3.3: low_freq_factor and high_freq_factor, which files do not have, and the original context.
LLAMA3_BANDS, LLAMA3_CONTEXT = (1.0, 4.0), 8192


@dataclasses.dataclass(frozen=True)
class Model:
    """The content of a GGUF file.

    Attributes:
      fields: fields of a config.json.
      tensors: by their names in the file (`FAMILY`), with the values and the order of the originals.
      tokenizer: with as many rows as the embedding.
      name, licence: those in the file; '' if it has none.
    """

    fields: dict[str, Any]
    tensors: dict[str, Quantised]
    tokenizer: Tokenizer
    name: str
    licence: str


def read_model(path: str | os.PathLike) -> Model:
    """The language model of a GGUF file, with nothing dequantised yet.

    Raises:
      FileNotFoundError, ImportError, ValueError: as for `read_gguf`; or the architecture, a setting or the tokenizer
        is not known; the message names it.
    """
    keys, tensors = read_gguf(path)
    try:
        fields = _fields(keys, tensors)
        tensors = {name: _as_before(name, tensor, fields) for name, tensor in tensors.items()}
        tokenizer = read_tokenizer(keys, fields['vocab_size'])
    except KeyError as error:
        raise UserError(f'{path} has no key for {error}. Download it again.') from error
    except ValueError as error:
        raise UserError(f'{path}: {error}') from error
    except (ArithmeticError, TypeError) as error:  # A key has a number that cannot be, or is no number.
        raise UserError(f'{path} is damaged ({type(error).__name__}: {error}). Download it again.') from error
    return Model(fields, tensors, tokenizer, str(keys.get('general.name', '')), str(keys.get('general.license', '')))


def _fields(keys: Mapping[str, Any], tensors: Mapping[str, Quantised]) -> dict[str, Any]:
    """The fields of the model's config.json."""
    kind = keys.get('general.architecture')
    if kind not in KINDS:
        raise UserError(f'the architecture {kind!r} is not known. Known: {", ".join(KINDS)}.')
    of = {name.removeprefix(f'{kind}.'): value for name, value in keys.items() if name.startswith(f'{kind}.')}
    for name, neutral in NEUTRAL.items():
        if of.get(name, neutral) != neutral:
            raise UserError(f'{kind}.{name} = {of[name]!r} is not supported.')
    if 'attention.scale' in of and kind not in SCALED:
        raise UserError(f'{kind}.attention.scale = {of["attention.scale"]!r} is not supported.')
    if 'token_embd.weight' not in tensors:
        raise UserError(
            'it has no tensor token_embd.weight, so it is not a language model. Give the file of the language model.'
        )
    blocks = 1 + max((int(name.split('.')[1]) for name in tensors if re.match(r'blk\.\d+\.', name)), default=-1)
    if of['block_count'] != blocks:
        raise UserError(f'its block_count is {of["block_count"]}, but it has tensors of {blocks} blocks.')
    width, heads = of['embedding_length'], of['attention.head_count']
    head_dim = of.get('attention.key_length') or width // heads
    if {of.get('attention.value_length', head_dim), of.get('rope.dimension_count', head_dim)} != {head_dim}:
        raise UserError(
            f'heads that are not rotated whole, or whose values are not as wide as their keys ({head_dim}).'
        )
    fields: dict[str, Any] = dict(
        model_type=KINDS[kind],
        vocab_size=tensors['token_embd.weight'].shape[0],
        hidden_size=width,
        num_hidden_layers=of['block_count'],
        num_attention_heads=heads,
        num_key_value_heads=of.get('attention.head_count_kv', heads),
        head_dim=head_dim,
        intermediate_size=of['feed_forward_length'],
        max_position_embeddings=of['context_length'],
        rms_norm_eps=of['attention.layer_norm_rms_epsilon'],
        tie_word_embeddings='output.weight' not in tensors,
        attention_bias='blk.0.attn_output.bias' in tensors,
        rope_scaling=_scaling(of, tensors),
    )
    also: dict[str, Any] = dict(
        rope_theta='rope.freq_base',
        rope_local_base_freq='rope.freq_base_swa',
        attn_logit_softcapping='attn_logit_softcapping',
        final_logit_softcapping='final_logit_softcapping',
    )
    fields |= {name: of[key] for name, key in also.items() if key in of}
    if kind in SCALED:
        fields['sliding_window'] = of['attention.sliding_window']
        by_width = (kind, of['block_count']) in SCALED_BY_WIDTH
        fields['query_pre_attn_scalar'] = width // heads if by_width else head_dim
        if scale := of.get('attention.scale'):
            fields['query_pre_attn_scalar'] = round(scale**-2, 3)
        if isinstance(local := of.get('attention.sliding_window_pattern'), list):
            fields['layer_types'] = ['sliding_attention' if one else 'full_attention' for one in local]
        elif local:
            fields['sliding_window_pattern'] = local
    return fields


def _scaling(of: Mapping[str, Any], tensors: Mapping[str, Quantised]) -> dict[str, Any]:
    """The scaling of rotary positions."""
    if 'rope_freqs.weight' in tensors:
        return _llama3_scaling(np.asarray(tensors['rope_freqs.weight'], np.float32), of.get('rope.freq_base', 10_000.0))
    factor = of.get('rope.scaling.factor', of.get('rope.scale_linear')) or 1.0  # The latter is the key's old name.
    kind = of.get('rope.scaling.type', 'none' if factor == 1 else 'linear')
    return dict(rope_type='default' if kind == 'none' else kind, factor=factor)


def _llama3_scaling(divisors: np.ndarray, base: float) -> dict[str, Any]:
    """The scaling of LLaMA 3 from its divisors of frequencies: 1, the factor, or between."""
    factor, (low, high) = float(divisors.max()), LLAMA3_BANDS
    frequency = base ** -(np.arange(len(divisors)) / len(divisors)) / (2 * np.pi)  # Turns per position.
    between = (divisors > 1.001) & (divisors < 0.999 * factor)
    share = (1 / divisors[between] - 1 / factor) / (1 - 1 / factor)  # Share of a frequency that is kept.
    contexts = (low + share * (high - low)) / frequency[between]
    context = round(float(np.median(contexts))) if between.any() else LLAMA3_CONTEXT
    kept = np.clip((context * frequency - low) / (high - low), 0, 1)
    if not np.allclose(divisors, 1 / ((1 - kept) / factor + kept), rtol=1e-3):
        raise UserError('its rope_freqs are not those of LLaMA 3. No others are supported.')
    names = ('low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings')
    return dict(rope_type='llama3', factor=factor, **dict(zip(names, (low, high, context), strict=True)))


def _as_before(name: str, tensor: Quantised, fields: Mapping[str, Any]) -> Quantised:
    """Undoes the change of a GGUF writer to a tensor."""
    kind, part = fields['model_type'], name.removesuffix('.weight').removesuffix('.bias').split('.')[-1]
    change = None
    if kind == 'llama' and part in ('attn_q', 'attn_k'):
        heads = fields['num_attention_heads' if part == 'attn_q' else 'num_key_value_heads']
        change = functools.partial(_halves, heads=heads)
    elif kind.startswith('gemma') and part.endswith('norm'):
        change = _without_one
    return dataclasses.replace(tensor, change=change)


def _halves(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head in the order of pairs (first of each, second of each) -> all firsts, then all seconds."""
    return tensor.reshape(heads, -1, 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def _without_one(scale: np.ndarray) -> np.ndarray:
    return scale - 1
