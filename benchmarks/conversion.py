"""How much memory and time the conversion of a large language model takes.

    python benchmarks/conversion.py --folder=DIR [--depth=32]

Writes a LLaMA-7B (of fewer blocks if --depth says so) with random bfloat16 weights, a shard a block, in the layout of Hugging
Face; converts it with the function of `python -m flamingo_jax.convert lm`; prints seconds, and the peak of the memory that is
not the page cache's (RssAnon of /proc/self/status, every 20 ms). Three times the model's size must be free on the disk.
"""

import json
import pathlib
import re
import shutil
import threading
import time

import ml_dtypes
import numpy as np
import safetensors.numpy
import tokenizers
from absl import app, flags, logging

from flamingo_jax import convert

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


def watch(peak: list[int], end: threading.Event) -> None:
    """Keeps the highest RssAnon, in bytes, in peak[0]."""
    while not end.wait(0.02):
        status = pathlib.Path('/proc/self/status').read_text()
        peak[0] = max(peak[0], int(re.search(r'RssAnon:\s+(\d+) kB', status)[1]) * 1024)


def main(argv):
    """Writes, converts, prints, removes."""
    del argv
    logging.set_verbosity(logging.ERROR)
    folder = pathlib.Path(flags.FLAGS.folder)
    size = write_checkpoint(folder / 'source', flags.FLAGS.depth)
    peak, end, begin = [0], threading.Event(), time.perf_counter()
    threading.Thread(target=watch, args=(peak, end), daemon=True).start()
    convert.lm(str(folder / 'source'), str(folder / 'bundle'))
    end.set()
    seconds = time.perf_counter() - begin
    print(f'{size / 1e9:.1f} GB converted in {seconds:.0f} s, {peak[0] / 2**30:.2f} GiB beside the page cache')
    shutil.rmtree(folder)


if __name__ == '__main__':
    flags.DEFINE_string('folder', None, 'Folder to work in; it must not exist, and is removed.', required=True)
    flags.DEFINE_integer('depth', 32, 'Blocks; 32 are 13.5 GB.')
    app.run(main)
