"""A Gemma 3 of 270M parameters in this project, beside Google DeepMind's own JAX code: prefill and decoding.

    pip install -e . && pip install gemma==3.0.0
    python -m benchmarks.gemma3 --out=FILE.json [--threads=1] [--length=256] [--new=32]

The weights are random, float32, and the same on both sides. Each side runs in a process of its own; the processes take
turns, `--repeats` times. A process reads the prompt and writes greedily `--new` tokens twice: cold, with compilation,
and warm. Theirs is the loop of their sampler, which needs no tokenizer (`gemma.gm.text`).

The logits after the prompt and all tokens must agree. A ratio is theirs / ours: the median, the least and the greatest.
Seconds are the processor's own with one thread, so that other work on the machine changes them less; otherwise those of
a clock.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

DEPTH, HEADS, HEAD_DIM, WINDOW, PATTERN = 18, 4, 256, 512, 6
FIELDS = dict(
    model_type='gemma3_text',
    vocab_size=262_144,
    hidden_size=640,
    num_hidden_layers=DEPTH,
    num_attention_heads=HEADS,
    num_key_value_heads=1,
    head_dim=HEAD_DIM,
    intermediate_size=2048,
    hidden_activation='gelu_pytorch_tanh',
    max_position_embeddings=32_768,
    query_pre_attn_scalar=HEAD_DIM,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    rope_local_base_freq=1e4,
    sliding_window=WINDOW,
    sliding_window_pattern=PATTERN,
)
TOLERANCE = 1e-4  # Of the largest logit.


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=pathlib.Path, required=True, help='JSON file of all figures')
    parser.add_argument('--threads', type=int, default=1, help='number of cores, the first allowed ones')
    parser.add_argument('--length', type=int, default=256, help='tokens of the prompt')
    parser.add_argument('--new', type=int, default=32, help='tokens to write')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--side', choices=('ours', 'theirs'), help=argparse.SUPPRESS)
    return parser.parse_args()


def side(a: argparse.Namespace) -> None:
    """Runs one side, and prints its times, logits and tokens as JSON."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: a.threads])  # Before JAX starts its threads.
    import flax.linen as nn
    import jax

    from flamingo_jax.conversion.language_model_configs import config_of
    from flamingo_jax.model.config import FlamingoConfig
    from flamingo_jax.model.flamingo import Flamingo

    model = Flamingo(FlamingoConfig(lm=config_of(FIELDS)))
    shapes = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0)))
    rng = np.random.default_rng(0)

    def draw(path, x):
        if x.ndim < 3 and 'scale' in jax.tree_util.keystr(path):
            return rng.normal(0, 0.1, x.shape).astype(np.float32)
        fan_in = x.shape[-1] if x.ndim == 2 else np.prod(x.shape[1:-1]) if 'out' in str(path) else x.shape[1]
        return (rng.standard_normal(x.shape, np.float32) * np.float32(fan_in**-0.5)).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    tokens = rng.integers(1_000, 250_000, (1, a.length)).astype(np.int32)
    clock = time.process_time if a.threads == 1 else time.perf_counter
    read, write, steps, logits = (ours if a.side == 'ours' else theirs)(model, params, tokens, a.new)
    times = []
    for _ in range(2):
        begin = clock()
        state = jax.block_until_ready(read())
        middle = clock()
        written = np.asarray(write(*state))
        times.append((middle - begin, (clock() - middle) / steps))
    found = dict(times=times, tokens=np.ravel(written).tolist(), logits=np.ravel(logits())[::100].tolist())
    print(json.dumps(found | dict(jax=jax.__version__)))


def ours(model, params, tokens, new):
    """What reads the prompt, what writes after it, in how many steps, and the first logits: as `generate` does."""
    import jax

    from flamingo_jax.inference import decode, search, unrolled
    from flamingo_jax.inference.sampling import Sampling

    params = jax.device_put(params)
    by_token = unrolled.unroll(model, params)
    prefill = jax.jit(lambda params, tokens: decode.prefill(model, params, None, tokens, tokens >= 0, new))

    def read():
        return prefill(params, tokens)

    def write(logits, text):
        how = jax.random.key(0), Sampling(new), search.Marks((-1,))
        return search.answer(*by_token, decode.Prompts(None, text, logits), *how)

    return read, write, new - 1, lambda: read()[0]  # The prompt gives the first token.


def theirs(model, params, tokens, new):
    """The same of Google DeepMind's code."""
    import jax
    import jax.numpy as jnp
    from gemma import gm, modules, transformer
    from gemma.gm.text import _sampler_call, _sampling

    kinds = (modules.AttentionType.LOCAL_SLIDING,) * (PATTERN - 1) + (modules.AttentionType.GLOBAL,)
    config = transformer.TransformerConfig(
        num_layers=DEPTH,
        num_embed=FIELDS['vocab_size'],
        embed_dim=FIELDS['hidden_size'],
        hidden_dim=FIELDS['intermediate_size'],
        num_heads=HEADS,
        head_dim=HEAD_DIM,
        num_kv_heads=1,
        final_logit_softcap=None,
        use_post_attn_norm=True,
        use_post_ffw_norm=True,
        use_qk_norm=True,
        attention_types=tuple(kinds[i % PATTERN] for i in range(DEPTH)),
        sliding_window_size=WINDOW,
        transpose_gating_einsum=True,
        local_base_frequency=10_000,
        global_base_frequency=1_000_000,
        max_cache_length=None,
    )
    network = gm.nn.Transformer(config=config, dtype=jnp.float32)
    lm = params['lm']
    blocks, kernel = lm['blocks'], lambda name, i: lm['blocks'][name]['kernel'][i]

    def layer(i):
        ffw = {name: blocks['ffw'][name]['kernel'][i] for name in ('up', 'gate', 'down')}
        norms = dict(
            pre_attention_norm='norm_attention',
            post_attention_norm='norm_attended',
            pre_ffw_norm='norm_ffw',
            post_ffw_norm='norm_fed',
        )
        return {name: {'scale': blocks[of]['scale'][i]} for name, of in norms.items()} | dict(
            attn=dict(
                q_einsum=dict(w=kernel('query', i).swapaxes(0, 1)),
                kv_einsum=dict(w=np.stack([kernel(name, i).swapaxes(0, 1) for name in ('key', 'value')])),
                attn_vec_einsum=dict(w=kernel('out', i)),
                _query_norm=dict(scale=blocks['norm_query']['scale'][i]),
                _key_norm=dict(scale=blocks['norm_key']['scale'][i]),
            ),
            mlp=dict(gating_einsum=np.stack([ffw['up'].T, ffw['gate'].T]), linear=ffw['down']),
        )

    converted = {f'layer_{i}': layer(i) for i in range(DEPTH)} | dict(
        embedder=dict(input_embedding=lm['embedder']['tokens']),
        final_norm=dict(scale=lm['embedder']['norm_out']['scale']),
    )
    converted = jax.device_put(converted)
    places = tokens.shape[1] + new
    call = _sampler_call.SamplerCall(
        model=network,
        end_tokens=(-1,),
        forbidden_tokens=None,
        sampling=_sampling.Greedy(),
        cache_length=places,
        max_out_length=new,
        special_tokens=gm.text.Gemma3Tokenizer.special_tokens,
    )

    def read():
        cache = network.init_cache(batch_size=1, dtype=jnp.float32, cache_length=places)
        how = dict(images=None, cache=cache, last_state=None, rng=jax.random.key(0))
        return [call._init_state(params=converted, tokens=tokens, init_cache_length=tokens.shape[1], **how)]

    def write(state):
        return call._sample_loop(params=converted, state=state, max_new_tokens=jnp.asarray(new)).predicted_tokens

    def logits():
        return network.apply({'params': converted}, tokens, return_last_only=True).logits

    return read, write, new, logits


def main(a: argparse.Namespace) -> None:
    """Runs both sides in turns, and prints and writes the figures."""
    found = {name: [] for name in ('ours', 'theirs')}
    for _ in range(a.repeats):
        for name, runs in found.items():
            line = [sys.executable, '-m', 'benchmarks.gemma3', *sys.argv[1:], f'--side={name}']
            done = subprocess.run(line, stdout=subprocess.PIPE, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    figures = dict(length=a.length, new=a.new, threads=a.threads, **found)
    a.out.write_text(json.dumps(figures, indent=1) + '\n')
    first = [np.array(runs[0]['logits']) for runs in found.values()]
    difference = float(np.abs(first[0] - first[1]).max() / np.abs(first[1]).max())
    if difference > TOLERANCE or any(run['tokens'] != found['ours'][0]['tokens'] for run in found['theirs']):
        raise AssertionError(f'The tokens or the logits differ, the latter by {difference:.1e} of the largest.')
    print(f'The logits after the prompt differ by {difference:.1e} of the largest.\n')
    print('| | ours | theirs | theirs / ours |\n|---|---|---|---|')
    for i, run in enumerate(('cold', 'warm')):
        for j, (part, factor) in enumerate((('prompt, s', 1), ('a token, ms', 1000))):
            both = [[one['times'][i][j] for one in runs] for runs in found.values()]
            ratios = sorted(b / a for a, b in zip(*both, strict=True))
            medians = ' | '.join(f'{factor * statistics.median(of):.2f}' for of in both)
            span = f'{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})'
            print(f'| {run}, {part} | {medians} | {span} |')


if __name__ == '__main__':
    ARGUMENTS = parse()
    side(ARGUMENTS) if ARGUMENTS.side else main(ARGUMENTS)
