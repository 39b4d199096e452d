"""Tiny language models of every family with random weights: what the parity tests build.

Run where transformers is installed, this writes two of them, float16, with their logits and continuations:

    python tests/golden/make_language_models.py
"""

import json
import pathlib
import re

import numpy as np

FOLDER = pathlib.Path(__file__).parent
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
OPT = dict(
    vocab_size=VOCABULARY,
    hidden_size=48,
    ffn_dim=96,
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
    'opt': ('OPTConfig', OPT),
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
    'mosaic_gpt': ('MptConfig', MPT | dict(n_heads=4)),
    'mpt_clipped': ('MptConfig', MPT | dict(n_heads=4, attn_config=dict(clip_qkv=1.5, softmax_scale=0.2))),
}


def random_model(name: str, seed: int = 0):
    """transformers' model of a case, float32, with weights of a trained model's size: logits are of the order of 10."""
    import torch
    import transformers

    config_class, fields = FAMILIES[name]
    special = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    torch.manual_seed(seed)
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
                normal(parameter, is_scale - stored * is_scale, 0.3 if is_scale else 0.1)
            else:
                normal(parameter, 0.0, 2.0 * parameter.shape[0 if 'GPT2' in config_class else 1] ** -0.5)
    if name == 'mosaic_gpt':
        for block in model.transformer.blocks:
            block.attn.Wqkv = _normed(block.attn.Wqkv)
    return model


def _normed(linear):
    """MPT-1B's norms of queries and keys, which transformers' MPT lacks."""
    import torch

    class Normed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear
            width = linear.in_features
            self.q_ln, self.k_ln = (torch.nn.LayerNorm(width, bias=False) for _ in range(2))
            for norm in (self.q_ln, self.k_ln):
                torch.nn.init.normal_(norm.weight, 1.0, 0.3)

        def forward(self, x):
            q, k, v = self.linear(x).chunk(3, dim=-1)
            return torch.cat([self.q_ln(q), self.k_ln(k), v], dim=-1)

    return Normed()


def save(model, name: str, folder: pathlib.Path) -> None:
    """Writes a case as a folder of Hugging Face, with a tokenizer."""
    if name == 'mosaic_gpt':  # Whose own code is not in transformers: its names and its config, by hand.
        import safetensors.torch

        names = [
            (r'attn\.Wqkv\.(q_ln|k_ln)', r'attn.\1'),
            (r'attn\.Wqkv\.linear', 'attn.Wqkv'),
            (r'norm_([12])', r'ln_\1'),
            (r'norm_f', 'ln_f'),
            (r'ffn\.(up|down)_proj', r'mlp.mlp_\1'),
        ]
        state = {}
        for key, tensor in model.state_dict().items():
            for pattern, new in names:
                key = re.sub(pattern, new, key)
            if key != 'lm_head.weight':
                state[key] = tensor.contiguous()
        folder.mkdir(parents=True)
        safetensors.torch.save_file(state, folder / 'model.safetensors')
        fields = dict(MPT, n_heads=4, model_type='mosaic_gpt', mlp_ratio=4, alibi=True, attn_qk_ln=True, no_bias=True)
        (folder / 'config.json').write_text(json.dumps(fields | dict(eos_token_id=2)))
    else:
        model.save_pretrained(folder)
    write_tokenizer(folder, model.config.get_text_config().vocab_size)


def write_tokenizer(folder: pathlib.Path, size: int) -> None:
    """A tokenizer.json of so many words, w0, w1, ..., with <s> before a text."""
    import tokenizers

    words = ['<pad>', '<s>', '</s>'] + [f'w{i}' for i in range(size - 3)]
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, '<pad>'))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(words[:3])
    made.post_processor = tokenizers.processors.TemplateProcessing('<s> $A', special_tokens=[('<s>', 1)])
    made.save(str(folder / 'tokenizer.json'))


def left_padded(rows: int = 3, length: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int32 [rows length], and which of them are valid: later rows begin with more padding."""
    tokens = np.random.default_rng(0).integers(3, 90, (rows, length), np.int32)
    return tokens, np.arange(length) >= np.arange(rows)[:, None] * 6


def logits_of(model, tokens: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """transformers' logits; positions count the valid tokens, as its own generation has it."""
    import inspect

    import torch

    arguments = dict(input_ids=torch.tensor(tokens, dtype=torch.long), attention_mask=torch.tensor(valid.astype(int)))
    if 'position_ids' in inspect.signature(model.forward).parameters:
        arguments['position_ids'] = torch.tensor(np.maximum(valid.cumsum(1) - 1, 0))
    with torch.no_grad():
        return model(**arguments, use_cache=False).logits.numpy()


def continuations_of(model, tokens: np.ndarray, valid: np.ndarray, steps: int = 16) -> np.ndarray:
    """transformers' greedy continuations, which no token ends."""
    import torch

    model.generation_config.eos_token_id = None
    rows = model.generate(
        torch.tensor(tokens, dtype=torch.long),
        attention_mask=torch.tensor(valid.astype(int)),
        do_sample=False,
        max_new_tokens=steps,
        pad_token_id=0,
    )
    return rows[:, tokens.shape[1] :].numpy()


GOLDEN = {
    'golden_llama3': ('LlamaConfig', LLAMA | dict(hidden_size=24, num_hidden_layers=2, rope_parameters=LLAMA3)),
    'golden_gemma3': (
        'Gemma3TextConfig',
        FAMILIES['gemma3'][1] | dict(hidden_size=24, num_hidden_layers=3, sliding_window_pattern=2),
    ),
}


def main():
    FAMILIES.update(GOLDEN)
    tokens, valid = left_padded()
    for name in GOLDEN:
        model = random_model(name)
        for parameter in model.parameters():  # And not `model.half()`, which would round the rotary frequencies too.
            parameter.data = parameter.data.half().float()
        expected = dict(logits=logits_of(model, tokens, valid), continuations=continuations_of(model, tokens, valid))
        save(model.half(), name, FOLDER / name)
        np.savez_compressed(FOLDER / name / 'expected.npz', **expected)


if __name__ == '__main__':
    main()
