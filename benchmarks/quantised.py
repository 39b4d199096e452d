"""A language model with its matrices in int8, int4 or fp8, beside itself in float32: bytes, time a token, logits.

    python -m benchmarks.quantised --lm=BUNDLE [--dtypes=int8,int4] [--threads=1]

**Time**: of one more token of one row, decoded as `generate` does. All dtypes take turns in one process; the ratio is
that of neighbours in time, and `of the bound` says how far a token is from reading the float32 weights once at the
bandwidth of a matrix-vector product, measured in the same turns. Time is the processor's own with one thread, so that
other work on the machine changes it less; with several threads it is wall time.

**Logits**: of the text of this project's documentation, in pieces of 256 tokens. `both` is the product of the training
with `config.frozen_dtype`, which rounds each token's activations too.
"""

import argparse
import functools
import os
import pathlib
import statistics
import time


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--lm', required=True, help='A bundle of a language model.')
    parser.add_argument('--dtypes', default='int8,int4')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--tokens', type=int, default=33, help='New tokens of a turn.')
    parser.add_argument('--turns', type=int, default=7)
    parser.add_argument('--pieces', type=int, default=16, help='Pieces of 256 tokens whose logits are compared.')
    return parser.parse_args()


if __name__ == '__main__':
    ARGUMENTS = parse()
    # Before JAX starts its threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: ARGUMENTS.threads])

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import flamingo_jax  # noqa: E402
from flamingo_jax import memory  # noqa: E402
from flamingo_jax.checkpoints import bundle  # noqa: E402
from flamingo_jax.inference import search  # noqa: E402
from flamingo_jax.inference.pretrained import Pretrained  # noqa: E402
from flamingo_jax.inference.sampling import Sampling  # noqa: E402
from flamingo_jax.model.quantised import Quantisation  # noqa: E402

PIECE = 256
ROOT = pathlib.Path(__file__).parents[1]


def texts(model: Pretrained, pieces: int) -> np.ndarray:
    """Tokens [pieces PIECE] of the documentation, each piece after <BOS>."""
    text = '\n\n'.join(path.read_text() for path in sorted(ROOT.glob('docs/*.md'))).replace('<', '')
    ids = model.tokenizer.encode(text)[: pieces * (PIECE - 1)]
    rows = np.array(ids[: len(ids) // (PIECE - 1) * (PIECE - 1)]).reshape(-1, PIECE - 1)
    return np.concatenate([np.full((len(rows), 1), model.tokenizer.bos), rows], axis=1).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def compare(models, params, other_params, tokens):
    """Sums over a piece: largest and mean difference of logits, KL(float32 || other), same best token, both NLLs."""
    model, other = models
    p, q = model.logits(params, None, tokens), other.logits(other_params, None, tokens)
    difference = jnp.abs(p - q)
    logp, logq = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
    kl = (jnp.exp(logp) * (logp - logq)).sum(-1)
    nll = [-jnp.take_along_axis(x[:, :-1], tokens[:, 1:, None], axis=2).mean() for x in (logp, logq)]
    same = (p.argmax(-1) == q.argmax(-1)).mean()
    return jnp.stack([difference.max(), difference.mean(), jnp.abs(p).max(), kl.mean(), same, *nll])


def decoder(model: Pretrained, steps: int):
    """A function that decodes `steps` tokens after a prompt, which is read here."""
    read = model.read([['The history of the steam engine begins with']], steps)
    arguments = (*model.by_token, read, jax.random.key(0), Sampling(steps), search.Marks((-1,)))

    def run():
        tokens = search.answer(*arguments)
        assert (np.asarray(tokens) >= 0).all()

    return run


def bandwidth():
    """A function that multiplies a vector by 400 MB of float32 matrices."""
    weights = [jnp.ones((2048, 4096)) for _ in range(12)]
    multiply = jax.jit(lambda x, weights: [x @ w for w in weights])
    return lambda: jax.block_until_ready(multiply(jnp.ones((1, 2048)), weights))


def main(arguments: argparse.Namespace) -> None:
    """Prints both tables."""
    memory.keep_freed()
    dtypes = arguments.dtypes.split(',')
    models = {name: flamingo_jax.load(arguments.lm, dtype=name) for name in ('float32', *dtypes)}
    tied = models['float32'].config.lm.tied
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    runs = {name: decoder(model, arguments.tokens) for name, model in models.items()} | {'bound': bandwidth()}
    for name, run in runs.items():
        begin = clock()
        run()
        print(f'{name}: {clock() - begin:.0f} s to compile and run once', flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.turns):
        for name, run in runs.items():
            begin = clock()
            run()
            seconds[name].append(clock() - begin)

    def read(model):
        lm = model.params['lm']
        if not tied:  # A token then reads one row of the embeddings.
            lm = lm | dict(embedder=lm['embedder'] | dict(tokens=None))
        return sum(x.nbytes for x in jax.tree.leaves(lm))

    whole = read(models['float32'])
    bound = [s * whole / (12 * 2048 * 4096 * 4) for s in seconds.pop('bound')]
    print(
        '| matrices | MB | ms a token | tokens a second | float32 / this | of the bound of float32 |\n'
        + '|---' * 6
        + '|'
    )
    for name, times in seconds.items():
        each = [s / (arguments.tokens - 1) for s in times]
        first = [s / (arguments.tokens - 1) for s in seconds['float32']]
        ratios, bounds = (sorted(a / b for a, b in zip(*pair, strict=True)) for pair in ((first, each), (each, bound)))
        ms = statistics.median(each)
        print(
            f'| {name} | {read(models[name]) / 1e6:.0f} | {1e3 * ms:.1f} | {1 / ms:.0f} | '
            f'{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) | '
            f'{statistics.median(bounds):.2f} ({bounds[0]:.2f} to {bounds[-1]:.2f}) |',
            flush=True,
        )
    base = models['float32']
    rows = texts(base, arguments.pieces)
    others = {name: (model.model, model.params) for name, model in models.items() if name != 'float32'}
    opened = bundle.read(arguments.lm)
    for name in dtypes:
        if name != 'int4':
            other = type(base.model)(base.config, jnp.float32, quantised=Quantisation(name, inputs=True))
            others[f'{name}, both'] = other, {'lm': bundle.as_kept(opened, 'lm', other)}
    print(
        '\n| matrices | logits, largest difference | mean | of the largest logit | KL | same best token | perplexity |'
    )
    print('|---' * 7 + '|')
    for name, (other, params) in others.items():
        parts = [compare((base.model, other), base.params, params, row[None]) for row in rows]
        parts = np.array(parts)
        largest, mean, logit, kl, same, nll, other_nll = parts.mean(0)
        print(
            f'| {name} | {parts[:, 0].max():.2f} | {mean:.3f} | {largest / logit:.3f} | {kl:.4f} | {same:.1%} | '
            f'{np.exp(other_nll):.2f}, float32 {np.exp(nll):.2f} |',
            flush=True,
        )


if __name__ == '__main__':
    main(ARGUMENTS)
