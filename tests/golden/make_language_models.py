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

    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                is_scale = parameter_name.endswith('weight')
                offset = 0.0 if not is_scale or 'Gemma' in config_class else 1.0
                normal(parameter, offset, 0.3)
            else:
                normal(parameter, 0.0, 2.0 * parameter.shape[0 if 'GPT2' in config_class else 1] ** -0.5)
        normal(embedding, 0.0, 0.2)
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
