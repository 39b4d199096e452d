"""Published language models, in Hugging Face's layout, as the tree `lm` of this project.

    config.json -> `config_of` -> LanguageModelConfig; with the tensors -> `convert` -> {'embedder': ..., 'blocks': ...}

The tensors are a mapping from names to arrays, mapped from files (`hugging_face.py`) or taken from anywhere else, such as the
part of an OpenFlamingo checkpoint whose names begin with 'lang_encoder.'. A family is a row of `FAMILIES`: how its config.json
reads, and what it calls our parameters. Shapes follow from our own tree, so that no parameter can be forgotten. torch keeps
a linear map as [out, in], we as [in..., out...]; blocks are stacked on a leading axis.

Sources: the model files of transformers 5.24, and of mosaicml/examples for `mosaic_gpt`.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from tqdm import tqdm

from flamingo_jax.model.config import FlamingoConfig, LanguageModelConfig
from flamingo_jax.model.flamingo import Flamingo, Params

Fields = Mapping[str, Any]  # Of a config.json.
Tensors = Mapping[str, np.ndarray]
Path = tuple[str, ...]

ACTIVATIONS = {
    'gelu': 'gelu',
    'gelu_new': 'gelu_tanh',
    'gelu_fast': 'gelu_tanh',
    'gelu_pytorch_tanh': 'gelu_tanh',
    'relu': 'relu',
    'silu': 'silu',
    'swish': 'silu',
}


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of language models.

    Attributes:
      config: config.json -> our config.
      names: what stands in our tree above a 'kernel', 'scale' or 'bias' -> what stands above 'weight' or 'bias' in theirs;
        '*' is the number of a block.
      prefixes: what all names but the output's may begin with; the first is today's.
      fused: '' or how one tensor holds queries, keys and values: 'thirds' (all queries first) or 'heads' (head after head).
      input_first: linear maps are [in, out], and not [out, in] (GPT-2).
      positions_from: the row of their table of positions that is our first.
      made: our config -> tensors that their files lack because they are computed (XGLM's sinusoids).
      buffers: a pattern of the ends of names that are no parameters, or not of the language model.
    """

    config: Callable[[Fields], LanguageModelConfig]
    names: dict[str, str]
    prefixes: tuple[str, ...]
    fused: str = ''
    input_first: bool = False
    positions_from: int = 0
    made: Callable[[LanguageModelConfig], dict[str, np.ndarray]] = lambda config: {}
    buffers: str = r'rotary_emb\.inv_freq'


class Weight(NamedTuple):
    """Where one tensor, or a part of it, goes."""

    path: Path  # Of the leaf in our tree.
    block: int | None  # Which row of the leaf; None is the whole leaf.
    name: str  # In theirs.
    shape: tuple[int, ...]  # In theirs.
    change: Callable[[np.ndarray], np.ndarray]


# config.json


def config_of(fields: Fields, where: Any = 'config.json') -> LanguageModelConfig:
    """The config of a published language model.

    Args:
      fields: of its config.json.
      where: the file, for errors.

    Raises:
      ValueError: an unknown model_type, or a setting that this decoder does not have; both are named.
    """
    try:
        return family_of(fields).config(_text(fields))
    except KeyError as error:
        raise ValueError(f'{where} has no {error}, which its model_type {fields.get("model_type")!r} needs.') from error
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from error


def family_of(fields: Fields) -> Family:
    """The row of `FAMILIES` for a config.json. Raises ValueError for an unknown model_type."""
    kind = _text(fields).get('model_type')
    if kind not in FAMILIES:
        raise ValueError(f'the model_type {kind!r} is not known. Known: {", ".join(sorted(FAMILIES))}.')
    return FAMILIES[kind]


def _text(fields: Fields) -> Fields:
    """The language model's part of the config of a model that also sees."""
    return dict(model_type='gemma3_text') | fields['text_config'] if fields.get('model_type') == 'gemma3' else fields


def _refuse(fields: Fields, **supported: Any) -> None:
    """Raises ValueError if a setting has another value than the one given; without it, it has that one."""
    if fields.get('quantization_config'):
        raise ValueError('its weights are quantized. Give the folder of the model before quantization.')
    for name, value in supported.items():
        if fields.get(name, value) not in (value, None):
            raise ValueError(f'{name} = {fields[name]!r} is not supported, only {value!r}.')


def _activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise ValueError(f'the activation {name!r} is not known. Known: {", ".join(sorted(ACTIVATIONS))}.')
    return ACTIVATIONS[name]


def _rotary(fields: Fields, layers: str = 'full_attention', base: float = 10_000.0) -> dict[str, Any]:
    """The fields of rotary positions; `rope_parameters` in files since 2025, `rope_theta` and `rope_scaling` before."""
    scaling = fields.get('rope_parameters') or fields.get('rope_scaling') or {}
    scaling = scaling.get(layers, scaling)
    out = dict(rotary_base=float(scaling.get('rope_theta') or fields.get('rope_theta') or base))
    kind = scaling.get('rope_type', scaling.get('type', 'default'))
    if kind in ('linear', 'llama3'):
        out['rotary_factor'] = float(scaling['factor'])
    if kind == 'llama3':
        bands = ('low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings')
        out['rotary_bands'] = tuple(float(scaling[band]) for band in bands)
    if kind not in ('default', 'linear', 'llama3'):
        raise ValueError(f'the rope scaling {kind!r} is not supported. Supported: default, linear, llama3.')
    return out


def _llama(fields: Fields, **more: Any) -> LanguageModelConfig:
    """LLaMA 1 to 3, and what the families that descend from it share with it."""
    _refuse(fields, mlp_bias=False, use_bidirectional_attention=False)
    width, heads = fields['hidden_size'], fields['num_attention_heads']
    common = dict(
        vocab_size=fields['vocab_size'],
        width=width,
        depth=fields['num_hidden_layers'],
        heads=heads,
        kv_heads=fields.get('num_key_value_heads') or heads,
        head_dim=fields.get('head_dim') or width // heads,
        ffw_width=fields['intermediate_size'],
        context=fields.get('max_position_embeddings', 2048),
        norm='rms',
        norm_eps=fields.get('rms_norm_eps', 1e-6),
        activation=_activation(fields.get('hidden_act', 'silu')),
        gated_ffw=True,
        bias_qkv=bool(fields.get('attention_bias')),
        bias_out=bool(fields.get('attention_bias')),
        tied=fields.get('tie_word_embeddings', False),
        scale_embeddings=False,
    )
    return LanguageModelConfig(**common | _rotary(fields) | more)


def _windows(fields: Fields, window: int | None, local: Callable[[int], bool]) -> dict[str, Any]:
    """The windows of the blocks: those that `layer_types` says, or else those with `local(number)`."""
    depth = fields['num_hidden_layers']
    kinds = fields.get('layer_types') or ['sliding_attention' if local(i) else 'full_attention' for i in range(depth)]
    if unknown := set(kinds) - {'sliding_attention', 'full_attention'}:
        raise ValueError(f'the layer_types {sorted(unknown)} are not supported.')
    if not window or 'sliding_attention' not in kinds:
        return {}
    return dict(windows=tuple(window if kind == 'sliding_attention' else 0 for kind in kinds))


def _mistral(fields: Fields) -> LanguageModelConfig:
    return _llama(fields, **_windows(fields, fields.get('sliding_window', 4096), lambda i: True))


def _qwen2(fields: Fields, **more: Any) -> LanguageModelConfig:
    window = fields.get('sliding_window', 4096) if fields.get('use_sliding_window') else None
    windows = _windows(fields, window, lambda i: i >= fields.get('max_window_layers', 28))
    return _llama(fields, **dict(bias_qkv=True) | more | windows)


def _qwen3(fields: Fields) -> LanguageModelConfig:
    fields = dict(head_dim=128) | fields
    return _qwen2(fields, norm_query_key='head', bias_qkv=bool(fields.get('attention_bias')))


def _gemma(fields: Fields, **more: Any) -> LanguageModelConfig:
    fields = dict(head_dim=256, tie_word_embeddings=True, max_position_embeddings=8192) | fields
    activation = fields.get('hidden_activation') or fields.get('hidden_act') or 'gelu'
    # The first files say 'gelu', and were trained with its approximation.
    fields['hidden_act'] = 'gelu_pytorch_tanh' if activation == 'gelu' else activation
    return _llama(fields, **dict(norm_offset=1.0, scale_embeddings=True) | more)


def _gemma2(fields: Fields, **more: Any) -> LanguageModelConfig:
    soft_caps = dict(attn_logit_softcapping=50.0, final_logit_softcapping=30.0)
    fields = soft_caps | dict(query_pre_attn_scalar=256, sliding_window=4096) | fields
    also = dict(
        norm_after=True,
        attention_scale=fields['query_pre_attn_scalar'] ** -0.5,
        attention_cap=fields['attn_logit_softcapping'] or 0.0,
        logit_cap=fields['final_logit_softcapping'] or 0.0,
    )
    windows = _windows(fields, fields['sliding_window'], lambda i: i % 2 == 0)
    return _gemma(fields, **also | windows | more)


def _gemma3(fields: Fields) -> LanguageModelConfig:
    # What the language models inside of the published ones that also see leave out.
    defaults = dict(vocab_size=262_208, num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=131_072)
    fields = defaults | dict(attn_logit_softcapping=None, final_logit_softcapping=None) | fields
    pattern = fields.get('sliding_window_pattern', 6)
    more = dict(windows=()) | _windows(fields, fields.get('sliding_window', 4096), lambda i: (i + 1) % pattern > 0)
    local = (fields.get('rope_parameters') or {}).get('sliding_attention') or {}
    base = local.get('rope_theta') or fields.get('rope_local_base_freq') or 10_000.0
    more |= _rotary(fields, base=1e6) | dict(rotary_local_base=float(base), norm_query_key='head')
    return _gemma2(fields, **more)


def _gpt_neox(fields: Fields) -> LanguageModelConfig:
    _refuse(fields, attention_bias=True)
    width, heads = fields['hidden_size'], fields['num_attention_heads']
    scaling = fields.get('rope_parameters') or fields.get('rope_scaling') or {}
    share = scaling.get('partial_rotary_factor', fields.get('rotary_pct', 0.25))
    return LanguageModelConfig(
        vocab_size=fields['vocab_size'],
        width=width,
        depth=fields['num_hidden_layers'],
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        ffw_width=fields['intermediate_size'],
        context=fields.get('max_position_embeddings', 2048),
        norm='layer',
        norm_eps=fields.get('layer_norm_eps', 1e-5),
        activation=_activation(fields.get('hidden_act', 'gelu')),
        bias=True,
        parallel=fields.get('use_parallel_residual', True),
        rotary_share=share,
        tied=fields.get('tie_word_embeddings', False),
        scale_embeddings=False,
        **_rotary(fields, base=fields.get('rotary_emb_base', 10_000.0)),
    )


def _mpt(fields: Fields) -> LanguageModelConfig:
    """MPT; `mosaic_gpt`, as MPT-1B calls itself, has the settings of attention beside the others."""
    attention = fields.get('attn_config') or {
        name.removeprefix('attn_') if name in ('attn_qk_ln', 'attn_clip_qkv') else name: value
        for name, value in fields.items()
    }
    _refuse(attention, attn_type='multihead_attention', prefix_lm=False)
    _refuse(fields, logit_scale=None, no_bias=True)
    if not attention.get('alibi', fields['model_type'] == 'mpt'):
        raise ValueError('alibi = False is not supported, only True.')
    width, heads = fields['d_model'], fields['n_heads']
    return LanguageModelConfig(
        vocab_size=fields['vocab_size'],
        width=width,
        depth=fields['n_layers'],
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        ffw_width=width * fields.get('expansion_ratio', fields.get('mlp_ratio', 4)),
        context=fields.get('max_seq_len', 2048),
        norm='layer',
        norm_eps=fields.get('layer_norm_epsilon', 1e-5),
        norm_bias=False,
        norm_query_key='token' if attention.get('qk_ln') else '',
        activation='gelu',
        attention_scale=attention.get('softmax_scale'),
        clip_qkv=attention.get('clip_qkv') or 0.0,
        positions='alibi',
        alibi_max=float(attention.get('alibi_bias_max', 8)),
        scale_embeddings=False,
    )


def _opt(fields: Fields) -> LanguageModelConfig:
    """OPT, but for OPT-350m, which norms after its blocks and embeds in another width."""
    width, heads = fields['hidden_size'], fields['num_attention_heads']
    _refuse(fields, do_layer_norm_before=True, _remove_final_layer_norm=False, word_embed_proj_dim=width)
    _refuse(fields, enable_bias=True, layer_norm_elementwise_affine=True)
    return LanguageModelConfig(
        vocab_size=fields['vocab_size'],
        width=width,
        depth=fields['num_hidden_layers'],
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        ffw_width=fields['ffn_dim'],
        context=fields.get('max_position_embeddings', 2048),
        norm='layer',
        activation=_activation(fields.get('activation_function', 'relu')),
        bias=True,
        positions='learned',
        tied=fields.get('tie_word_embeddings', True),
        scale_embeddings=False,
    )


def _xglm(fields: Fields) -> LanguageModelConfig:
    _refuse(fields, add_cross_attention=False)
    width, heads = fields['d_model'], fields['attention_heads']
    return LanguageModelConfig(
        vocab_size=fields['vocab_size'],
        width=width,
        depth=fields['num_layers'],
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        ffw_width=fields['ffn_dim'],
        context=fields.get('max_position_embeddings', 2048),
        norm='layer',
        activation=_activation(fields.get('activation_function', 'gelu')),
        bias=True,
        positions='learned',
        tied=fields.get('tie_word_embeddings', True),
        scale_embeddings=fields.get('scale_embedding', True),
    )


def _xglm_positions(config: LanguageModelConfig) -> dict[str, np.ndarray]:
    """Sines, then cosines, of positions that begin with 2; float32 throughout, as theirs."""
    half = config.width // 2
    frequency = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(10_000) / (half - 1)))
    angle = np.arange(2, config.context + 2, dtype=np.float32)[:, None] * frequency
    return {'embed_positions.weight': np.concatenate([np.sin(angle), np.cos(angle)], axis=1)}


def _gpt2(fields: Fields) -> LanguageModelConfig:
    _refuse(fields, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    width, heads = fields['n_embd'], fields['n_head']
    return LanguageModelConfig(
        vocab_size=fields['vocab_size'],
        width=width,
        depth=fields['n_layer'],
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        ffw_width=fields.get('n_inner') or 4 * width,
        context=fields.get('n_positions', 1024),
        norm='layer',
        norm_eps=fields.get('layer_norm_epsilon', 1e-5),
        activation=_activation(fields.get('activation_function', 'gelu_new')),
        bias=True,
        positions='learned',
        tied=fields.get('tie_word_embeddings', True),
        scale_embeddings=False,
    )


def _bloom(fields: Fields) -> LanguageModelConfig:
    _refuse(fields, apply_residual_connection_post_layernorm=False)
    width = fields.get('hidden_size') or fields['n_embed']
    heads = fields.get('n_head') or fields['num_attention_heads']
    return LanguageModelConfig(
        vocab_size=fields['vocab_size'],
        width=width,
        depth=fields.get('n_layer') or fields['num_hidden_layers'],
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        ffw_width=4 * width,
        context=fields.get('seq_length', 2048),
        norm='layer',
        norm_eps=fields.get('layer_norm_epsilon', 1e-5),
        norm_embeddings=True,
        activation='gelu_tanh',
        bias=True,
        positions='alibi',
        tied=fields.get('tie_word_embeddings', True),
        scale_embeddings=False,
    )


# The names. Ours is act(up) * gate, so that LLaMA's gate_proj is our 'up'.
LLAMA = {
    'tokens': 'embed_tokens',
    'norm_out': 'norm',
    'output': 'lm_head',
    'norm_attention': 'layers.*.input_layernorm',
    'query': 'layers.*.self_attn.q_proj',
    'key': 'layers.*.self_attn.k_proj',
    'value': 'layers.*.self_attn.v_proj',
    'out': 'layers.*.self_attn.o_proj',
    'norm_ffw': 'layers.*.post_attention_layernorm',
    'ffw/up': 'layers.*.mlp.gate_proj',
    'ffw/gate': 'layers.*.mlp.up_proj',
    'ffw/down': 'layers.*.mlp.down_proj',
}
QWEN3 = LLAMA | {'norm_query': 'layers.*.self_attn.q_norm', 'norm_key': 'layers.*.self_attn.k_norm'}
GEMMA2 = QWEN3 | {
    'norm_attended': 'layers.*.post_attention_layernorm',
    'norm_ffw': 'layers.*.pre_feedforward_layernorm',
    'norm_fed': 'layers.*.post_feedforward_layernorm',
}
OPT = {
    'tokens': 'embed_tokens',
    'positions': 'embed_positions',
    'norm_out': 'final_layer_norm',
    'output': 'lm_head',
    'norm_attention': 'layers.*.self_attn_layer_norm',
    'query': 'layers.*.self_attn.q_proj',
    'key': 'layers.*.self_attn.k_proj',
    'value': 'layers.*.self_attn.v_proj',
    'out': 'layers.*.self_attn.out_proj',
    'norm_ffw': 'layers.*.final_layer_norm',
    'ffw/up': 'layers.*.fc1',
    'ffw/down': 'layers.*.fc2',
}
GPT2 = {
    'tokens': 'wte',
    'positions': 'wpe',
    'norm_out': 'ln_f',
    'output': 'lm_head',
    'norm_attention': 'h.*.ln_1',
    'query': 'h.*.attn.c_attn',
    'out': 'h.*.attn.c_proj',
    'norm_ffw': 'h.*.ln_2',
    'ffw/up': 'h.*.mlp.c_fc',
    'ffw/down': 'h.*.mlp.c_proj',
}
BLOOM = {
    'tokens': 'word_embeddings',
    'norm_in': 'word_embeddings_layernorm',
    'norm_out': 'ln_f',
    'output': 'lm_head',
    'norm_attention': 'h.*.input_layernorm',
    'query': 'h.*.self_attention.query_key_value',
    'out': 'h.*.self_attention.dense',
    'norm_ffw': 'h.*.post_attention_layernorm',
    'ffw/up': 'h.*.mlp.dense_h_to_4h',
    'ffw/down': 'h.*.mlp.dense_4h_to_h',
}
GPT_NEOX = {
    'tokens': 'embed_in',
    'norm_out': 'final_layer_norm',
    'output': 'embed_out',
    'norm_attention': 'layers.*.input_layernorm',
    'query': 'layers.*.attention.query_key_value',
    'out': 'layers.*.attention.dense',
    'norm_ffw': 'layers.*.post_attention_layernorm',
    'ffw/up': 'layers.*.mlp.dense_h_to_4h',
    'ffw/down': 'layers.*.mlp.dense_4h_to_h',
}
MPT = {
    'tokens': 'wte',
    'norm_out': 'norm_f',
    'output': 'lm_head',
    'norm_attention': 'blocks.*.norm_1',
    'norm_query': 'blocks.*.attn.q_ln',
    'norm_key': 'blocks.*.attn.k_ln',
    'query': 'blocks.*.attn.Wqkv',
    'out': 'blocks.*.attn.out_proj',
    'norm_ffw': 'blocks.*.norm_2',
    'ffw/up': 'blocks.*.ffn.up_proj',
    'ffw/down': 'blocks.*.ffn.down_proj',
}
MOSAIC_GPT = MPT | {
    'norm_out': 'ln_f',
    'norm_attention': 'blocks.*.ln_1',
    'norm_ffw': 'blocks.*.ln_2',
    'ffw/up': 'blocks.*.mlp.mlp_up',
    'ffw/down': 'blocks.*.mlp.mlp_down',
}

SEEING = r'(vision_tower|multi_modal_projector|lm_head)\..*'  # Of a Gemma 3 that also sees; its output is tied.
GEMMA_PREFIXES = ('model.', 'language_model.model.', 'model.language_model.', '')

# model_type in config.json -> its family.
FAMILIES = {
    'llama': Family(_llama, LLAMA, ('model.', '')),
    'mistral': Family(_mistral, LLAMA, ('model.', '')),
    'qwen2': Family(_qwen2, LLAMA, ('model.', '')),
    'qwen3': Family(_qwen3, QWEN3, ('model.', '')),
    'gemma': Family(_gemma, LLAMA, ('model.', '')),
    'gemma2': Family(_gemma2, GEMMA2, ('model.', '')),
    'gemma3_text': Family(_gemma3, GEMMA2, GEMMA_PREFIXES, buffers=SEEING),
    'gpt_neox': Family(
        _gpt_neox,
        GPT_NEOX,
        ('gpt_neox.', ''),
        fused='heads',
        buffers=r'attention\.(bias|masked_bias|rotary_emb\.inv_freq)',
    ),
    'mpt': Family(_mpt, MPT, ('transformer.', ''), fused='thirds'),
    'mosaic_gpt': Family(_mpt, MOSAIC_GPT, ('transformer.', ''), fused='thirds'),
    'opt': Family(_opt, OPT, ('model.decoder.', 'decoder.', ''), positions_from=2),
    'xglm': Family(
        _xglm,
        OPT | {'norm_out': 'layer_norm'},
        ('model.', ''),
        made=_xglm_positions,
        buffers=r'embed_positions\.weights',
    ),
    'gpt2': Family(
        _gpt2,
        GPT2,
        ('transformer.', ''),
        fused='thirds',
        input_first=True,
        buffers=r'h\.\d+\.attn\.(bias|masked_bias)',
    ),
    'bloom': Family(_bloom, BLOOM, ('transformer.', ''), fused='heads'),
}


# The tensors


def _check(family: Family, weights: list[Weight], tensors: Tensors, tied: bool, kind: str) -> None:
    """Raises ValueError for tensors that are missing, of another shape, or of no use; all are named."""
    wrong = []
    for name, shape in {weight.name: weight.shape for weight in weights}.items():
        if name not in tensors:
            wrong.append(f'missing: {name} {shape}')
        elif tensors[name].shape != shape:
            wrong.append(f'{name} has the shape {tensors[name].shape} and not {shape}')
    buffers = re.compile(rf'.*({family.buffers})')
    # Some files repeat a tied embedding.
    used = {weight.name for weight in weights} | ({f'{family.names["output"]}.weight'} if tied else set())
    wrong += [f'unused: {name}' for name in sorted(tensors) if name not in used and not buffers.fullmatch(name)]
    if wrong:
        more = f' and {len(wrong) - 10} more' if len(wrong) > 10 else ''
        raise ValueError(
            f'The tensors are not those of the {kind!r} that the config describes ({"; ".join(wrong[:10])}{more}). '
            'Give the config.json and the weights of one and the same model, all of its files.'
        )


def _weights(family: Family, config: LanguageModelConfig, prefix: str) -> Iterator[Weight]:
    tree = nn.meta.unbox(jax.eval_shape(Flamingo(FlamingoConfig(lm=config)).init, jax.random.key(0)))['lm']
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = tuple(key.key for key in keys)
        stacked, shape = path[0] == 'blocks', leaf.shape[path[0] == 'blocks' :]
        ours, kind = ('/'.join(path[1:-1]), path[-1]) if len(path) > 2 else (path[1], 'table')
        fused = family.fused if ours in ('query', 'key', 'value') else ''
        theirs = family.names['query' if fused else ours]
        name = f'{"" if ours == "output" else prefix}{theirs}.{"bias" if kind == "bias" else "weight"}'
        if kind == 'table':
            begin = family.positions_from if ours == 'positions' else 0
            their_shape, change = (shape[0] + begin, shape[1]), functools.partial(_rows_from, begin=begin)
        else:
            inputs = (2 if ours == 'out' else 1) if kind == 'kernel' else 0  # How many of our dimensions.
            flat = (math.prod(shape[inputs:]), *([math.prod(shape[:inputs])] if inputs else []))
            their_shape = ((3 if fused else 1) * flat[0], *flat[1:])
            their_shape = their_shape[::-1] if family.input_first else their_shape
            split = {'': None, 'thirds': (3, config.heads, -1), 'heads': (config.heads, 3, -1)}[fused]
            part = ('query', 'key', 'value').index(ours) if fused else 0
            change = functools.partial(_ours, shape, flat, split, part, family.input_first)
        for block in range(config.depth) if stacked else [None]:
            yield Weight(path, block, name.replace('*', str(block)), their_shape, change)


def _rows_from(table: np.ndarray, begin: int) -> np.ndarray:
    return table[begin:]


def _ours(shape, flat, split, part, input_first, tensor: np.ndarray) -> np.ndarray:
    """Their linear map [out, in], bias or scale [out] as ours: of a fused one the part, the input first, in our shape."""
    tensor = tensor.T if input_first else tensor
    if split:
        parts = tensor.reshape(*split, *flat[1:])
        tensor = (parts[part] if split[0] == 3 else parts[:, part]).reshape(flat)
    return tensor.T.reshape(shape)


def convert(
    fields: Fields,
    tensors: Tensors,
    empty: Callable[[Path, tuple[int, ...], np.dtype], np.ndarray] = lambda path, shape, dtype: np.empty(shape, dtype),
    progress: bool = False,
) -> tuple[LanguageModelConfig, Params]:
    """A published language model as (our config, the tree `lm`), in the dtypes of its tensors.

    Each tensor is read once, in the order of `tensors`, so that a file after the other is gone through.

    Args:
      fields: of its config.json.
      tensors: names -> arrays, which may be mapped from files.
      empty: (path, shape, dtype) -> an array to be filled, for a leaf of our tree. `np.empty` holds the model in memory;
        an array that is mapped to a file does not.
      progress: whether a bar shows bytes and time left.

    Raises:
      ValueError: the config or a tensor does not fit; nothing was read.
    """
    family, config = family_of(fields), config_of(fields)
    prefix = next((p for p in family.prefixes if f'{p}{family.names["tokens"]}.weight' in tensors), family.prefixes[0])
    tensors = {prefix + name: tensor for name, tensor in family.made(config).items()} | dict(tensors)
    weights = list(_weights(family, config, prefix))
    _check(family, weights, tensors, config.tied, _text(fields)['model_type'])
    by_name: dict[str, list[Weight]] = {}
    for weight in weights:
        by_name.setdefault(weight.name, []).append(weight)
    leaves: dict[Path, np.ndarray] = {}
    total = sum(tensors[name].nbytes for name in by_name)
    with tqdm(total=total, unit='B', unit_scale=True, desc='language model', disable=not progress) as bar:
        for name, tensor in tensors.items():
            for weight in by_name.get(name, ()):
                new = weight.change(tensor)
                if weight.path not in leaves:
                    rows = () if weight.block is None else (config.depth,)
                    leaves[weight.path] = empty(weight.path, (*rows, *new.shape), tensor.dtype)
                leaf = leaves[weight.path]
                _copy(leaf if weight.block is None else leaf[weight.block], new, name)
            bar.update(tensor.nbytes if name in by_name else 0)
    params: Params = {}
    for path, leaf in leaves.items():
        tree = params
        for step in path[:-1]:
            tree = tree.setdefault(step, {})
        tree[path[-1]] = leaf
    return config, params


def _copy(to: np.ndarray, new: np.ndarray, name: str) -> None:
    if to.dtype != new.dtype:
        raise ValueError(
            f'{name} is of {new.dtype}, but that of another block is of {to.dtype}: save them as one dtype.'
        )
    if new.dtype.itemsize == 2:  # numpy transposes its own types an order of magnitude faster than bfloat16.
        to, new = to.view(np.uint16), new.view(np.uint16)
    np.copyto(to, new)
