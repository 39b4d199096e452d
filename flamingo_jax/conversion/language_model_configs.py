"""The config.json of a published language model -> LanguageModelConfig.

There is one function per family. Missing keys get the defaults of transformers 5.24 (of mosaicml/examples for
`mosaic_gpt`). A setting that this decoder does not support is an error that names it.
"""

from collections.abc import Callable
from typing import Any

from flamingo_jax.conversion.hugging_face import activation_of
from flamingo_jax.errors import UserError
from flamingo_jax.model.config import LanguageModelConfig

Fields = dict[str, Any]  # Of a config.json.


def config_of(fields: Fields, where: Any = 'config.json') -> LanguageModelConfig:
    """The config of a published language model.

    Args:
      fields: of its config.json.
      where: the file, for errors.

    Raises:
      ValueError: the model_type is unknown, or this decoder does not support a setting; the message names it.
    """
    fields = text_fields(fields)
    kind = fields.get('model_type')
    if not isinstance(kind, str) or kind not in CONFIGS:
        raise UserError(f'{where}: the model_type {kind!r} is not known. Known: {", ".join(sorted(CONFIGS))}.')
    try:
        if fields.get('quantization_config') or fields.get('quantization'):  # The latter by MLX.
            raise UserError('its weights are quantized. Give the folder of the model before quantization.')
        config = CONFIGS[kind](fields)
    except KeyError as error:
        raise UserError(f'{where} has no {error}, which the model_type {kind!r} needs.') from error
    except Exception as error:  # A number where a list should be, and the like.
        raise UserError(f'{where}: {error}') from error
    if config.heads % config.kv_heads:
        heads = f'{config.heads} heads on {config.kv_heads} of keys'
        raise UserError(f'{where} does not describe a model: it has {heads}. Download it again.')
    return config


def text_fields(fields: Fields) -> Fields:
    """The language model's part of the config of a model with vision."""
    inner = fields.get('text_config') if fields.get('model_type') == 'gemma3' else None
    return dict(model_type='gemma3_text') | inner if isinstance(inner, dict) else fields


def _refuse(fields: Fields, **supported: Any) -> None:
    """ValueError if a setting has another value than the given one, which is its default."""
    for name, value in supported.items():
        if fields.get(name, value) not in (value, None):
            raise UserError(f'{name} = {fields[name]!r} is not supported, only {value!r}.')


def _rotary(fields: Fields, base: float = 10_000.0) -> dict[str, Any]:
    """The fields of rotary positions: `rope_parameters` since 2025, `rope_theta` and `rope_scaling` in older files."""
    scaling = fields.get('rope_parameters') or fields.get('rope_scaling') or {}
    scaling = scaling.get('full_attention', scaling)
    out: dict[str, Any] = dict(rotary_base=float(scaling.get('rope_theta') or fields.get('rope_theta') or base))
    kind = scaling.get('rope_type', scaling.get('type', 'default'))
    if kind in ('linear', 'llama3'):
        out['rotary_factor'] = float(scaling['factor'])
    if kind == 'llama3':
        bands = ('low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings')
        out['rotary_bands'] = tuple(float(scaling[band]) for band in bands)
    if kind not in ('default', 'linear', 'llama3'):
        raise UserError(f'the rope scaling {kind!r} is not supported. Supported: default, linear, llama3.')
    return out


def _windows(fields: Fields, window: int | None, local: Callable[[int], bool]) -> dict[str, Any]:
    """The windows of the blocks that `layer_types` marks, or else of those with `local(number)`."""
    depth = fields['num_hidden_layers']
    kinds = fields.get('layer_types') or ['sliding_attention' if local(i) else 'full_attention' for i in range(depth)]
    if unknown := set(kinds) - {'sliding_attention', 'full_attention'}:
        raise UserError(f'the layer_types {sorted(unknown)} are not supported.')
    if not window or 'sliding_attention' not in kinds:
        return dict(windows=())
    return dict(windows=tuple(window if kind == 'sliding_attention' else 0 for kind in kinds))


def _llama(fields: Fields, **more: Any) -> LanguageModelConfig:
    """LLaMA 1 to 3, and the fields that its descendants share."""
    _refuse(fields, mlp_bias=False, use_bidirectional_attention=False)
    width, heads = fields['hidden_size'], fields['num_attention_heads']
    common: dict[str, Any] = dict(
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
        activation=activation_of(fields.get('hidden_act', 'silu')),
        gated_ffw=True,
        bias_qkv=bool(fields.get('attention_bias')),
        bias_out=bool(fields.get('attention_bias')),
        tied=fields.get('tie_word_embeddings', False),
        scale_embeddings=False,
    )
    return LanguageModelConfig(**common | _rotary(fields) | more)


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
    # The first files say 'gelu', but were trained with its tanh approximation.
    fields['hidden_act'] = 'gelu_pytorch_tanh' if activation == 'gelu' else activation
    return _llama(fields, **dict(norm_offset=1.0, scale_embeddings=True) | more)


def _gemma2(fields: Fields, **more: Any) -> LanguageModelConfig:
    fields = dict(attn_logit_softcapping=50.0, final_logit_softcapping=30.0, query_pre_attn_scalar=256) | fields
    also: dict[str, Any] = dict(
        norm_place='around',
        attention_scale=fields['query_pre_attn_scalar'] ** -0.5,
        attention_cap=fields['attn_logit_softcapping'] or 0.0,
        logit_cap=fields['final_logit_softcapping'] or 0.0,
    )
    windows = _windows(fields, fields.get('sliding_window', 4096), lambda i: i % 2 == 0)
    return _gemma(fields, **also | windows | more)


def _gemma3(fields: Fields) -> LanguageModelConfig:
    # Defaults of keys that are missing in published models with vision.
    defaults: dict[str, Any] = dict(
        vocab_size=262_208, num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=131_072
    )
    fields = defaults | dict(attn_logit_softcapping=None, final_logit_softcapping=None) | fields
    pattern = fields.get('sliding_window_pattern', 6)
    windows = _windows(fields, fields.get('sliding_window', 4096), lambda i: (i + 1) % pattern > 0)
    local = (fields.get('rope_parameters') or {}).get('sliding_attention') or {}
    base = local.get('rope_theta') or fields.get('rope_local_base_freq') or 10_000.0
    more: dict[str, Any] = dict(rotary_local_base=float(base), norm_query_key='head')
    return _gemma2(fields, **windows | _rotary(fields, base=1e6) | more)


def _gpt(vocab_size: int, width: int, depth: int, heads: int, ffw_width: int, **more: Any) -> LanguageModelConfig:
    """Common to families that do not descend from LLaMA: layer norms, biases, as many key heads as query heads."""
    common: dict[str, Any] = dict(
        kv_heads=heads, head_dim=width // heads, norm='layer', bias=True, scale_embeddings=False
    )
    return LanguageModelConfig(vocab_size, width, depth, heads, ffw_width=ffw_width, **common | more)


def _gpt_neox(fields: Fields) -> LanguageModelConfig:
    _refuse(fields, attention_bias=True)
    scaling = fields.get('rope_parameters') or fields.get('rope_scaling') or {}
    return _gpt(
        fields['vocab_size'],
        fields['hidden_size'],
        fields['num_hidden_layers'],
        heads=fields['num_attention_heads'],
        ffw_width=fields['intermediate_size'],
        context=fields.get('max_position_embeddings', 2048),
        norm_eps=fields.get('layer_norm_eps', 1e-5),
        activation=activation_of(fields.get('hidden_act', 'gelu')),
        parallel=fields.get('use_parallel_residual', True),
        rotary_share=scaling.get('partial_rotary_factor', fields.get('rotary_pct', 0.25)),
        tied=fields.get('tie_word_embeddings', False),
        **_rotary(fields, base=float(fields.get('rotary_emb_base', 10_000))),
    )


def _mpt(fields: Fields) -> LanguageModelConfig:
    attention = fields.get('attn_config') or {}
    _refuse(attention, attn_type='multihead_attention', prefix_lm=False, alibi=True)
    _refuse(fields, logit_scale=None, no_bias=True)
    return _gpt(
        fields['vocab_size'],
        fields['d_model'],
        fields['n_layers'],
        heads=fields['n_heads'],
        ffw_width=fields['d_model'] * fields.get('expansion_ratio', 4),
        context=fields.get('max_seq_len', 2048),
        norm_eps=fields.get('layer_norm_epsilon', 1e-5),
        norm_bias=False,
        norm_query_key='token' if attention.get('qk_ln') else '',
        activation='gelu',
        bias=False,
        attention_scale=attention.get('softmax_scale'),
        clip_qkv=attention.get('clip_qkv') or 0.0,
        positions='alibi',
        alibi_max=float(attention.get('alibi_bias_max', 8)),
        tied=fields.get('tie_word_embeddings', True),
    )


def _mosaic_gpt(fields: Fields) -> LanguageModelConfig:
    """MPT-1B, which has its attention settings at the top level, and other defaults."""
    attention = {name.removeprefix('attn_'): value for name, value in fields.items()}
    attention: dict[str, Any] = dict(alibi=False) | attention | dict(attn_type='multihead_attention')
    return _mpt(dict(no_bias=False) | fields | dict(attn_config=attention, expansion_ratio=fields.get('mlp_ratio', 4)))


def _opt(fields: Fields) -> LanguageModelConfig:
    width = fields['hidden_size']
    if fields.get('word_embed_proj_dim', width) != width or not fields.get('do_layer_norm_before', True):
        raise UserError("it is OPT-350m, whose norms and embeddings are unlike any other OPT's. Take another size.")
    _refuse(fields, _remove_final_layer_norm=False, enable_bias=True, layer_norm_elementwise_affine=True)
    return _gpt(
        fields['vocab_size'],
        width,
        fields['num_hidden_layers'],
        heads=fields['num_attention_heads'],
        ffw_width=fields['ffn_dim'],
        context=fields.get('max_position_embeddings', 2048),
        activation=activation_of(fields.get('activation_function', 'relu')),
        positions='learned',
        tied=fields.get('tie_word_embeddings', True),
    )


def _xglm(fields: Fields) -> LanguageModelConfig:
    _refuse(fields, add_cross_attention=False)
    return _gpt(
        fields['vocab_size'],
        fields['d_model'],
        fields['num_layers'],
        heads=fields['attention_heads'],
        ffw_width=fields['ffn_dim'],
        context=fields.get('max_position_embeddings', 2048),
        activation=activation_of(fields.get('activation_function', 'gelu')),
        positions='learned',
        tied=fields.get('tie_word_embeddings', True),
        scale_embeddings=fields.get('scale_embedding', True),
    )


def _gpt2(fields: Fields) -> LanguageModelConfig:
    _refuse(fields, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    return _gpt(
        fields['vocab_size'],
        fields['n_embd'],
        fields['n_layer'],
        heads=fields['n_head'],
        ffw_width=fields.get('n_inner') or 4 * fields['n_embd'],
        context=fields.get('n_positions', 1024),
        norm_eps=fields.get('layer_norm_epsilon', 1e-5),
        activation=activation_of(fields.get('activation_function', 'gelu_new')),
        positions='learned',
        tied=fields.get('tie_word_embeddings', True),
    )


def _bloom(fields: Fields) -> LanguageModelConfig:
    _refuse(fields, apply_residual_connection_post_layernorm=False)
    width = fields.get('hidden_size') or fields['n_embed']
    return _gpt(
        fields['vocab_size'],
        width,
        fields.get('n_layer') or fields['num_hidden_layers'],
        heads=fields.get('n_head') or fields['num_attention_heads'],
        ffw_width=4 * width,
        context=fields.get('seq_length', 2048),
        norm_eps=fields.get('layer_norm_epsilon', 1e-5),
        norm_embeddings=True,
        activation='gelu_tanh',
        positions='alibi',
        tied=fields.get('tie_word_embeddings', True),
    )


CONFIGS: dict[str, Callable[[Fields], LanguageModelConfig]] = {
    'bloom': _bloom,
    'gemma': _gemma,
    'gemma2': _gemma2,
    'gemma3_text': _gemma3,
    'gpt2': _gpt2,
    'gpt_neox': _gpt_neox,
    'llama': _llama,
    'mistral': _mistral,
    'mosaic_gpt': _mosaic_gpt,
    'mpt': _mpt,
    'opt': _opt,
    'qwen2': _qwen2,
    'qwen3': _qwen3,
    'xglm': _xglm,
}
