"""Measures memory and time of the conversion of a large model.

    python -m benchmarks.conversion --folder=DIR [--kind=idefics] [--depth=32]
    python -m benchmarks.conversion --folder=DIR --gguf=FILE

Writes a LLaMA-7B or an IDEFICS-9B (with fewer blocks by --depth) with random bfloat16 weights, in shards, in the
layout of Hugging Face, or takes a GGUF file. Converts it with the function of `python -m flamingo_jax.convert`. Prints
seconds, and the peak of memory outside the page cache (RssAnon of /proc/self/status, every 20 ms). Needs free disk
space of three times the model's size.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('folder', None, 'Folder to work in; it must not exist, and is removed.', required=True)
    flags.DEFINE_enum('kind', 'lm', ['lm', 'idefics'], 'A LLaMA-7B, or an IDEFICS-9B.')
    flags.DEFINE_string('gguf', '', 'A GGUF file to convert, in place of random weights.')
    flags.DEFINE_integer('depth', 32, 'Blocks; 32 are 13.5 GB of a LLaMA, 18 GB of an IDEFICS.')
    commands.start(__doc__)

import json
import math
import pathlib
import re
import shutil
import threading
import time

import ml_dtypes
import numpy as np
import safetensors.numpy
import tokenizers
from absl import logging

from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import idefics, language_model_files

WIDTH, FFW, VOCABULARY = 4096, 11008, 32000


def write_checkpoint(folder: pathlib.Path, depth: int) -> int:
    """Writes the folder, every block with the same random numbers, and returns its bytes of weights."""
    rng = np.random.default_rng(0)

    def weight(*shape):
        return (rng.standard_normal(shape, np.float32) * 0.02).astype(ml_dtypes.bfloat16)

    block = {f'self_attn.{name}_proj.weight': weight(WIDTH, WIDTH) for name in 'qkvo'}
    block |= {f'mlp.{name}_proj.weight': weight(FFW, WIDTH) for name in ('gate', 'up')}
    block |= {'mlp.down_proj.weight': weight(WIDTH, FFW)}
    block |= {f'{name}_layernorm.weight': weight(WIDTH) for name in ('input', 'post_attention')}
    shards = [{f'model.layers.{i}.{name}': tensor for name, tensor in block.items()} for i in range(depth)]
    ends = {'model.embed_tokens.weight': weight(VOCABULARY, WIDTH), 'lm_head.weight': weight(VOCABULARY, WIDTH)}
    shards.append(ends | {'model.norm.weight': weight(WIDTH)})
    folder.mkdir(parents=True)
    index = {}
    for number, shard in enumerate(shards):
        name = f'model-{number + 1:05}-of-{len(shards):05}.safetensors'
        safetensors.numpy.save_file(shard, folder / name)
        index |= dict.fromkeys(shard, name)
    (folder / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=index)))
    sizes = dict(hidden_size=WIDTH, intermediate_size=FFW, num_hidden_layers=depth, num_attention_heads=32)
    fields = sizes | dict(model_type='llama', vocab_size=VOCABULARY, eos_token_id=2)
    (folder / 'config.json').write_text(json.dumps(fields))
    words = tokenizers.models.WordLevel({f'w{i}': i for i in range(VOCABULARY)}, 'w0')
    tokenizers.Tokenizer(words).save(str(folder / 'tokenizer.json'))
    return sum(tensor.nbytes for shard in shards for tensor in shard.values())


def write_idefics(folder: pathlib.Path, depth: int) -> int:
    """The same for an IDEFICS, whose tensors repeat the same random numbers."""
    seen = dict(embed_dim=1280, num_hidden_layers=32, num_attention_heads=16, intermediate_size=5120, patch_size=14)
    sizes = dict(hidden_size=WIDTH, intermediate_size=FFW, num_hidden_layers=depth, num_attention_heads=32)
    fields = sizes | dict(model_type='idefics', vocab_size=VOCABULARY, additional_vocab_size=2, eos_token_id=2)
    fields |= dict(cross_layer_interval=4, qk_layer_norms=True, use_resampler=True, vision_config=seen)
    fields['perceiver_config'] = dict(qk_layer_norms_perceiver=True)
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text(json.dumps(fields))
    words = tokenizers.models.WordLevel({f'w{i}': i for i in range(VOCABULARY)}, 'w0')
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.add_special_tokens(list(idefics.NEW_TOKENS[:2]))
    tokenizer.save(str(folder / 'tokenizer.json'))
    shapes = {tensor.name: tensor.shape for tensor in idefics.tensors_of(idefics.config_of(fields))}
    numbers = (np.random.default_rng(0).standard_normal(VOCABULARY * WIDTH, np.float32) * 0.02).astype(
        ml_dtypes.bfloat16
    )
    index, shard, total = {}, {}, 0
    for name, shape in shapes.items():
        shard[name] = numbers[: math.prod(shape)].reshape(shape)
        total += shard[name].nbytes
        if sum(tensor.nbytes for tensor in shard.values()) > 10**9 or name == next(reversed(shapes)):
            file = f'model-{total}.safetensors'
            safetensors.numpy.save_file(shard, folder / file)
            index |= dict.fromkeys(shard, file)
            shard = {}
    (folder / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=index)))
    return total


def watch(peak: list[int], end: threading.Event) -> None:
    """Keeps the highest RssAnon, in bytes, in peak[0]."""
    while not end.wait(0.02):
        status = pathlib.Path('/proc/self/status').read_text()
        peak[0] = max(peak[0], int(re.search(r'RssAnon:\s+(\d+) kB', status)[1]) * 1024)


def main() -> None:
    """Writes, converts, prints, removes."""
    logging.set_verbosity(logging.ERROR)
    folder = pathlib.Path(flags.FLAGS.folder)
    folder.mkdir(parents=True)  # It must be new, since it is removed.
    is_idefics, source = flags.FLAGS.kind == 'idefics', pathlib.Path(flags.FLAGS.gguf or folder / 'source')
    if flags.FLAGS.gguf:
        size = source.stat().st_size
    else:
        size = (write_idefics if is_idefics else write_checkpoint)(source, flags.FLAGS.depth)
    peak, end, begin = [0], threading.Event(), time.perf_counter()
    threading.Thread(target=watch, args=(peak, end), daemon=True).start()
    write((idefics if is_idefics else language_model_files).convert, str(source), str(folder / 'bundle'))
    end.set()
    seconds = time.perf_counter() - begin
    print(f'{size / 1e9:.1f} GB converted in {seconds:.0f} s, {peak[0] / 2**30:.2f} GiB without the page cache')
    shutil.rmtree(folder)


if __name__ == '__main__':
    main()
