"""Tiny language models of every family with random weights: what the parity tests build.

Run where transformers is installed: python tests/golden/make_language_models.py
"""

import pathlib

VOCABULARY = 96
LLAMA = dict(
    vocab_size=VOCABULARY,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
LLAMA3 = dict(
    rope_type='llama3',
    rope_theta=5e5,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
GPT_NEOX = dict(
    vocab_size=VOCABULARY,
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=64,
)
MPT = dict(vocab_size=VOCABULARY, d_model=48, n_heads=6, n_layers=3, max_seq_len=64)
# Name of a case -> (transformers' config class, its fields).
FAMILIES = {
    'llama': ('LlamaConfig', LLAMA | dict(num_key_value_heads=6, rms_norm_eps=1e-5)),
    'llama3': ('LlamaConfig', LLAMA | dict(rope_parameters=LLAMA3, tie_word_embeddings=True)),
    'llama_linear': (
        'LlamaConfig',
        LLAMA
        | dict(head_dim=12, attention_bias=True, rope_parameters=dict(rope_type='linear', rope_theta=1e4, factor=4.0)),
    ),
    'pythia': ('GPTNeoXConfig', GPT_NEOX),
    'redpajama': ('GPTNeoXConfig', GPT_NEOX | dict(use_parallel_residual=False, rotary_pct=1.0)),
    'mpt': ('MptConfig', MPT),
    'mistral': ('MistralConfig', LLAMA | dict(sliding_window=7)),
    'mistral_wide': ('MistralConfig', LLAMA | dict(sliding_window=None, head_dim=16)),
    'qwen2': ('Qwen2Config', LLAMA),
    'qwen2_windows': (
        'Qwen2Config',
        LLAMA | dict(use_sliding_window=True, sliding_window=6, max_window_layers=1, tie_word_embeddings=True),
    ),
    'qwen3': ('Qwen3Config', LLAMA | dict(head_dim=12)),
    'gemma': ('GemmaConfig', LLAMA | dict(num_key_value_heads=1, head_dim=16)),
    'gemma2': (
        'Gemma2Config',
        LLAMA | dict(head_dim=12, sliding_window=6, query_pre_attn_scalar=9, num_hidden_layers=4),
    ),
    'gemma3': (
        'Gemma3TextConfig',
        LLAMA
        | dict(
            head_dim=12,
            sliding_window=6,
            num_hidden_layers=7,
            rope_parameters=dict(
                full_attention=dict(rope_type='linear', rope_theta=1e6, factor=8.0),
                sliding_attention=dict(rope_type='default', rope_theta=1e4),
            ),
        ),
    ),
    'opt': ('OPTConfig', {k: v for k, v in GPT_NEOX.items() if k != 'intermediate_size'} | dict(ffn_dim=96)),
    'gpt2': ('GPT2Config', dict(vocab_size=VOCABULARY, n_embd=48, n_layer=3, n_head=4, n_positions=64)),
    'bloom': ('BloomConfig', dict(vocab_size=VOCABULARY, hidden_size=48, n_layer=3, n_head=6)),
    'xglm': (
        'XGLMConfig',
        dict(
            vocab_size=VOCABULARY,
            d_model=48,
            num_layers=3,
            attention_heads=4,
            ffn_dim=96,
            max_position_embeddings=64,
        ),
    ),
    'mpt_clipped': ('MptConfig', MPT | dict(n_heads=4, attn_config=dict(clip_qkv=1.5, softmax_scale=0.2))),
}


def random_model(name: str, seed: int = 0):
    """transformers' model of a case, float32, with weights of a trained model's size: logits are of the order of 10."""
    import torch
    import transformers

    config_class, fields = FAMILIES[name]
    special = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = getattr(transformers, config_class)(**fields, **special)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation='eager').eval()
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter, mean, std):
        parameter.copy_(mean + std * torch.randn(parameter.shape, generator=generator))

    stored = 1.0 if 'Gemma' in config_class else 0.0  # What Gemma takes off its scales.
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            is_scale = parameter.ndim == 1 and parameter_name.endswith('weight')
            # A tied model would only repeat its text if the embedding were a large part of what is normed at last.
            if parameter is model.get_input_embeddings().weight:
                normal(parameter, 0.0, 0.1)
            elif 'word_embeddings_layernorm' in parameter_name:
                normal(parameter, 0.2 * is_scale, 0.05)
            elif is_scale and not any(part.isdecimal() for part in parameter_name.split('.')):
                normal(parameter, 4.0 - stored, 0.5)
            elif parameter.ndim == 1:
                normal(parameter, is_scale - stored * is_scale, 0.3)
            else:
                normal(parameter, 0.0, 2.0 * parameter.shape[0 if 'GPT2' in config_class else 1] ** -0.5)
    return model


def write_tokenizer(folder: pathlib.Path, size: int) -> None:
    """A tokenizer.json of so many words, w0, w1, ..., with <s> before a text."""
    import tokenizers

    words = ['<pad>', '<s>', '</s>'] + [f'w{i}' for i in range(size - 3)]
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, '<pad>'))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(words[:3])
    made.post_processor = tokenizers.processors.TemplateProcessing('<s> $A', special_tokens=[('<s>', 1)])
    made.save(str(folder / 'tokenizer.json'))
