"""GGUF files for tests, written with the package `gguf` as llama.cpp's convert_hf_to_gguf.py writes them."""

import json
import pathlib

import gguf
import numpy as np

ARCHITECTURES = {'gemma3_text': 'gemma3', 'mistral': 'llama'}
LETTERS = [*map(chr, range(ord('!'), ord('z'))), 'ab']


def write_model(fields: dict, tensors: dict[str, np.ndarray], path: pathlib.Path, **writer) -> None:
    """A language model of Hugging Face (its config.json, its tensors) in float32, with a tokenizer of letters."""
    arch = ARCHITECTURES.get(fields['model_type'], fields['model_type'])
    out = gguf.GGUFWriter(path, arch, **writer)
    heads, depth = fields['num_attention_heads'], fields['num_hidden_layers']
    head_dim = fields.get('head_dim') or fields['hidden_size'] // heads
    out.add_name('A tiny model')
    out.add_license('apache-2.0')
    out.add_context_length(fields['max_position_embeddings'])
    out.add_embedding_length(fields['hidden_size'])
    out.add_block_count(depth)
    out.add_feed_forward_length(fields['intermediate_size'])
    out.add_head_count(heads)
    out.add_head_count_kv(fields['num_key_value_heads'])
    out.add_layer_norm_rms_eps(fields['rms_norm_eps'])
    out.add_key_length(head_dim)
    out.add_value_length(head_dim)
    rope = fields['rope_parameters']
    rope = rope.get('full_attention', rope)
    out.add_rope_freq_base(rope['rope_theta'])
    if rope['rope_type'] == 'linear':
        out.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        out.add_rope_scaling_factor(rope['factor'])
    if arch in ('gemma2', 'gemma3'):
        out.add_sliding_window(fields['sliding_window'])
        out.add_attention_scale(fields['query_pre_attn_scalar'] ** -0.5)
    if arch == 'gemma3' and 'sliding_window_pattern' in fields:
        out.add_sliding_window_pattern(fields['sliding_window_pattern'])
    if arch == 'gemma2':
        out.add_attn_logit_softcapping(fields['attn_logit_softcapping'])
        out.add_final_logit_softcapping(fields['final_logit_softcapping'])
    add_letters(out, fields['vocab_size'])

    if rope['rope_type'] == 'llama3':
        out.add_tensor('rope_freqs.weight', llama3_divisors(rope, head_dim))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], depth)
    for name, tensor in tensors.items():
        if fields.get('tie_word_embeddings') and name == 'lm_head.weight':
            continue
        tensor = np.asarray(tensor, np.float32)
        if arch == 'llama' and ('q_proj' in name or 'k_proj' in name):
            count = heads if 'q_proj' in name else fields['num_key_value_heads']
            tensor = tensor.reshape(count, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
        if arch.startswith('gemma') and name.endswith('norm.weight'):
            tensor = tensor + 1
        out.add_tensor(names.get_name(name, ('.weight', '.bias')), tensor)
    write(out)


def llama3_divisors(rope: dict, head_dim: int) -> np.ndarray:
    """What the frequencies are divided by, as llama.cpp computes it."""
    low, high, context = (
        rope[name] for name in ('low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings')
    )
    divisors = []
    for exponent in range(0, head_dim, 2):
        wave = 2 * np.pi * rope['rope_theta'] ** (exponent / head_dim)
        if wave < context / high:
            divisors.append(1)
        elif wave > context / low:
            divisors.append(rope['factor'])
        else:
            smooth = (context / wave - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / rope['factor'] + smooth))
    return np.array(divisors, np.float32)


def add_letters(out: gguf.GGUFWriter, size: int) -> None:
    """A byte-level BPE of so many tokens: three that control, letters, one pair."""
    tokens = ['<pad>', '<s>', '</s>', *LETTERS, *(f'[PAD{i}]' for i in range(3 + len(LETTERS), size))][:size]
    out.add_tokenizer_model('gpt2')
    out.add_tokenizer_pre('gpt-2')
    out.add_token_list(tokens)
    out.add_token_types([3, 3, 3] + [5 if token.startswith('[PAD') else 1 for token in tokens[3:]])
    out.add_token_merges(['a b'])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_pad_token_id(0)
    out.add_add_bos_token(True)


def write(out: gguf.GGUFWriter) -> None:
    """All that was added, into the file."""
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def from_folder(folder: pathlib.Path, path: pathlib.Path, **writer) -> None:
    """The model of a folder of Hugging Face as a GGUF file."""
    import safetensors.numpy

    fields = json.loads((folder / 'config.json').read_text())
    write_model(fields, safetensors.numpy.load_file(folder / 'model.safetensors'), path, **writer)
