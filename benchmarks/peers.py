"""Compares speed with OpenFlamingo and IDEFICS: same weights, inputs and threads, in float32, in one run.

    python benchmarks/peers.py --threads=2 --out=FILE.json
        [--peers=idefics] [--only=generation] [--shots=4] [--batches=1]

Needs the extra `parity` and open-flamingo (docs/checkpoints.md). The models have about 300M random parameters: an LM
of width 768 with 12 layers and 32,000 tokens, a ViT-B/16 at 224 pixels, a gated block before every second layer, and
16 text tokens per picture. The project's converters convert the originals. The first logits and the training losses
must agree before anything is timed.

    training     a step of 4 rows of 5 pictures, with gradient clip and AdamW; from pixels and from features
    generation   64 new tokens after some examples and a last picture, greedy and with 3 beams

Ours and theirs take turns, --repeats times. A ratio is theirs / ours: the median, with the least and the greatest. An
original that takes longer than --patience seconds for its tokens is stopped; if its first run took as long, it has no
second. The time of its whole answer is then that of the prompt plus 64 tokens at the measured rate.

Bounds are those of the machine, measured before each case, by the faster of XLA and torch. A decoded token needs the
longer of two times: to read the weights once (bytes / bandwidth of a matrix-vector product), and to compute for all
rows (operations / rate of a matrix-matrix product). A training step computes. Cases already in --out are not run
again, so that a stopped run can resume. On both cores of a small machine this takes 1.5 hours, mostly for IDEFICS.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

SIZES = dict(hidden_size=768, num_attention_heads=12, intermediate_size=2048, max_position_embeddings=1024)
WORDS, DEPTH, EVERY = 31_996, 12, 2  # Four control tokens in addition.
NEW = 64
TOLERANCE = 1e-4  # Relative, of logits and losses.


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def several(kind: type, text: str) -> dict[str, Any]:
        return dict(type=lambda value: [kind(part) for part in value.split(',')], default=text)

    parser.add_argument(
        '--threads', type=int, default=os.cpu_count(), help='number of cores for both, the first allowed ones'
    )
    parser.add_argument(
        '--out', type=pathlib.Path, required=True, help='JSON file of all figures; each case is added to it'
    )
    parser.add_argument('--peers', **several(str, 'open_flamingo,idefics'))
    parser.add_argument('--only', **several(str, 'training,generation'))
    parser.add_argument('--shots', **several(int, '1,4,16'))
    parser.add_argument('--batches', **several(int, '1,8'))
    parser.add_argument('--beams', **several(int, '1,3'))
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--patience', type=float, default=30.0, help='seconds')
    return parser.parse_args()


if __name__ == '__main__':  # Both libraries count cores when they are imported.
    ARGUMENTS = parse()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: ARGUMENTS.threads])
    os.environ |= dict(OMP_WAIT_POLICY='passive', GOMP_SPINCOUNT='0')  # Otherwise torch's idle threads keep cores busy.

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from absl import logging  # noqa: E402
from transformers import StoppingCriteria  # noqa: E402

from flamingo_jax import convert  # noqa: E402
from flamingo_jax.inference import pretrained, search  # noqa: E402
from flamingo_jax.inputs.prompts import encode_prompt  # noqa: E402
from flamingo_jax.inputs.rows import Interleaved  # noqa: E402
from flamingo_jax.inputs.sources.documents import Documents  # noqa: E402
from flamingo_jax.parallel import mesh as meshes  # noqa: E402
from flamingo_jax.planning import flops  # noqa: E402
from flamingo_jax.training import state  # noqa: E402
from flamingo_jax.training.losses.noise import NoiseConfig  # noqa: E402
from flamingo_jax.training.optimizer import OptimizerConfig, make_optimizer  # noqa: E402
from flamingo_jax.training.step import make_step  # noqa: E402
from tests import peers  # noqa: E402

TRAINED = ('resampler', 'xattn', 'extra_tokens')


@dataclasses.dataclass(frozen=True)
class Pair:
    """An original and its conversion."""

    ours: pretrained.Pretrained
    theirs: torch.nn.Module
    words: int  # Words per example, so that it has 16 tokens.
    inputs: Callable[..., dict[str, Any]]  # (ids, pixels or None) -> arguments of `theirs`.
    features: Callable[[torch.Tensor], torch.Tensor]  # Of pixels.
    logits_of_features: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (ids, features).


def open_flamingo(folder: pathlib.Path) -> Pair:
    """On a LLaMA, with frozen embeddings, which is an option of its training."""
    vision = dict(image_size=224, layers=12, width=768, head_width=64, patch_size=16)
    model, _ = peers.open_flamingo(
        folder, 'llama', EVERY, DEPTH, 0, words=WORDS, sizes=SIZES | dict(num_key_value_heads=12), vision=vision
    )
    convert.open_flamingo(*(str(folder / name) for name in ('checkpoint.pt', 'lm', 'clip.pt', 'bundle')), heads=12)
    model.lang_encoder.get_input_embeddings().requires_grad_(False)

    def inputs(ids, pixels):
        return dict(vision_x=pixels, lang_x=ids, attention_mask=torch.ones_like(ids))

    def features(pixels):
        return model.vision_encoder(pixels.flatten(0, 2))[1].unflatten(0, pixels.shape[:3])

    def logits_of_features(ids, features):  # Its forward pass after the trunk, since it has no argument for features.
        media = model.perceiver(features)
        for layer in model.lang_encoder._get_decoder_layers():
            layer.condition_vis_x(media)
        model._condition_media_locations(input_ids=ids)
        return model.lang_encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).logits

    return Pair(pretrained.load(folder / 'bundle'), model, 14, inputs, features, logits_of_features)


def idefics(folder: pathlib.Path) -> Pair:
    """With a resampler of the published shape, and norms of queries and keys."""
    vision = dict(embed_dim=768, image_size=224, intermediate_size=3072, patch_size=16, num_hidden_layers=12)
    perceiver = dict(resampler_n_latents=64, resampler_depth=6, resampler_n_heads=16, resampler_head_dim=96)
    vision |= dict(num_attention_heads=12)
    model = peers.idefics(
        folder / 'source', every=EVERY, depth=DEPTH, words=WORDS, sizes=SIZES, vision=vision, perceiver=perceiver
    )
    for name, parameter in model.named_parameters():  # Its own choice of frozen parts leaves the head to be trained.
        parameter.requires_grad_(any(part in name for part in ('perceiver', 'gated_cross_attn', 'additional')))
    convert.idefics(str(folder / 'source'), str(folder / 'bundle'))
    ours = pretrained.load(folder / 'bundle')
    (image,) = ours.tokenizer.image_tag

    def inputs(ids, pixels):
        n = int((ids == image).sum(1).max())
        seen = ((ids == image).cumsum(1)[..., None] == torch.arange(1, n + 1)).long()
        shown = {} if pixels is None else dict(pixel_values=pixels[:, :, 0])
        return dict(input_ids=ids, attention_mask=torch.ones_like(ids), image_attention_mask=seen) | shown

    def features(pixels):
        found = model.model.vision_model(pixel_values=pixels.flatten(0, 2)).last_hidden_state
        return found.unflatten(0, pixels.shape[:2])

    def logits_of_features(ids, features):
        return model(**inputs(ids, None), image_encoder_embeddings=features).logits

    return Pair(ours, model, 13, inputs, features, logits_of_features)


def prompts_of(pair: Pair, rows: int, shots: int, ends: bool) -> list[list[Any]]:
    """Examples of 16 tokens each, and in generation a last picture with the beginning of its text."""
    rng = np.random.default_rng(0)
    end = '<EOC>' if pair.ours.tokenizer.around is None else ''
    prompts = []
    for _ in range(rows):
        prompt = []
        for _ in range(shots):
            words = ' '.join(f'w{i}' for i in rng.integers(0, WORDS, pair.words))
            prompt += [rng.integers(0, 256, (224, 224, 3), np.uint8), words + end]
        last = [] if ends else [rng.integers(0, 256, (224, 224, 3), np.uint8), 'w1 w2 w3 w4']
        prompts.append(prompt + last)
    return prompts


def encoded(pair: Pair, prompts: list[list[Any]]) -> tuple[np.ndarray, np.ndarray]:
    """ids [b l] and pixels uint8 [b n 1 224 224 3] of prompts, as in `Pretrained`."""
    rows = [encode_prompt(prompt, pair.ours.tokenizer, pair.ours.pictures) for prompt in prompts]
    return np.array([ids for ids, _ in rows], np.int32), np.stack([np.stack(pictures) for _, pictures in rows])


def for_torch(pair: Pair, ids: np.ndarray, pixels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, as the originals take them."""
    return torch.from_numpy(ids).long(), peers.standardised(pixels, pair.ours.config.vision)


def check_logits(pair: Pair) -> float:
    """The largest difference of a logit, as a share of the largest; AssertionError if it is not small."""
    ids, pixels = encoded(pair, prompts_of(pair, 2, 2, False))
    with torch.no_grad():
        expected = pair.theirs(**pair.inputs(*for_torch(pair, ids, pixels))).logits.numpy()
    got = np.asarray(pair.ours.logits(pixels, ids))
    difference = float(np.abs(got - expected).max() / np.abs(expected).max())
    if not difference < TOLERANCE:
        raise AssertionError(f'The logits differ by {difference:.1e} of the largest.')
    return difference


def seconds(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def bounds() -> dict[str, float]:
    """FLOP/s of matrix times matrix, bytes/s of vector times matrix: the better of both libraries, the best of six."""
    n, many = 2048, 12
    rng = np.random.default_rng(0)
    square = rng.standard_normal((n, n), np.float32)
    weights = [rng.standard_normal((n, 2 * n), np.float32) for _ in range(many)]  # 400 MB, more than any cache.
    x = np.ones((1, n), np.float32)
    multiply = jax.jit(jnp.matmul)
    vectors = jax.jit(lambda x, weights: [x @ w for w in weights])
    on_jax = jnp.asarray(square), jnp.asarray(x), [jnp.asarray(w) for w in weights]
    on_torch = torch.from_numpy(square), torch.from_numpy(x), [torch.from_numpy(w) for w in weights]
    matrix = [
        lambda: multiply(on_jax[0], on_jax[0]).block_until_ready(),
        lambda: on_torch[0] @ on_torch[0],
    ]
    vector = [lambda: jax.block_until_ready(vectors(*on_jax[1:])), lambda: [on_torch[1] @ w for w in on_torch[2]]]
    best = [min(seconds(f) for f in (f1, f2) for _ in range(6)) for f1, f2 in (matrix, vector)]
    return dict(flops=2 * n**3 / best[0], bytes=many * weights[0].nbytes / best[1])


def token_bytes(pair: Pair) -> int:
    """Bytes of weights that a decoded token reads: all but the LM's input and the gated blocks' maps of media."""
    params, c = pair.ours.params, pair.ours.config
    embedder = params['lm']['embedder']
    read = [params['lm']['blocks'], embedder['tokens'] if c.lm.tied else embedder['output'], embedder['norm_out']]
    read += [part for name, part in params['xattn'].items() if name not in ('key', 'value', 'norm_key', 'norm_media')]
    return sum(leaf.nbytes for leaf in jax.tree.leaves(read))


class Clock(StoppingCriteria):
    """Records the time of each new token; stops after `patience` seconds."""

    def __init__(self, patience: float):
        self.times, self._patience = [], patience

    def __call__(self, input_ids, scores, **kwargs):
        """Called for each token."""
        self.times.append(time.perf_counter())
        late = len(self.times) > 2 and self.times[-1] - self.times[0] > self._patience
        return torch.full((input_ids.shape[0],), late)


def generation(pair: Pair, shots: int, batch: int, beams: int, repeats: int, patience: float) -> dict[str, Any]:
    """Seconds to the first token and for each further one, ours and theirs; and whether all tokens are equal."""
    prompts = prompts_of(pair, batch, shots, False)
    ids, pixels = encoded(pair, prompts)
    x = for_torch(pair, ids, pixels)
    t, c = pair.ours.tokenizer, pair.ours.config
    # Tokens that end an answer and picture tags are banned, so that each answer has 64 tokens.
    banned = sorted({t.pad, t.bos, *t.ends, *(c.lm.vocab_size + i for i in range(len(c.extra_tokens)))})
    never = jnp.array([-1])

    def ours() -> tuple[float, float, np.ndarray]:
        begin = time.perf_counter()
        media, text, logits = jax.block_until_ready(pair.ours.read(prompts, NEW))
        first = time.perf_counter()
        common = (*pair.ours.by_token, media, text, logits, never)
        if beams > 1:
            tokens = search.beam_search(*common, NEW, beams, 0.0, tuple(banned))
        else:
            tokens = search.sample(*common, jax.random.key(0), NEW, search.Sampling(), tuple(banned))
        tokens = np.asarray(tokens)
        return first - begin, (time.perf_counter() - first) / (NEW - 1), tokens

    def theirs() -> tuple[float, float, np.ndarray]:
        clock = Clock(patience)
        how = dict(max_new_tokens=NEW, num_beams=beams, do_sample=False, length_penalty=0.0, pad_token_id=t.pad)
        how |= dict(eos_token_id=2, suppress_tokens=banned, stopping_criteria=[clock])
        begin = time.perf_counter()
        with torch.no_grad():
            out = pair.theirs.generate(**pair.inputs(*x), **how)
        after = statistics.median(np.diff(clock.times).tolist())
        return clock.times[0] - begin, after, out[:, ids.shape[1] :].numpy()

    ours()  # Compiles.
    runs = [(ours(), theirs())]
    for _ in range(1, repeats):
        slow = runs[0][1][0] + NEW * runs[0][1][1] > patience
        runs.append((ours(), runs[0][1] if slow else theirs()))
    mine, other = runs[0][0][2], runs[0][1][2]
    same = (
        float((mine[:, : other.shape[1]] == other).all(axis=1).mean()) if beams == 1 or other.shape[1] == NEW else None
    )
    rate = bounds()
    rows = batch * beams
    operations = flops.decode_step(c, rows, ids.shape[1] + NEW, 1)
    return dict(
        ours=dict(first=[run[0][0] for run in runs], token=[run[0][1] for run in runs]),
        theirs=dict(first=[run[1][0] for run in runs], token=[run[1][1] for run in runs], tokens=other.shape[1]),
        same_answers=same,
        bound=max(token_bytes(pair) / rate['bytes'], operations / rate['flops']),
        machine=rate,
    )


def training(pair: Pair, source: str, repeats: int) -> dict[str, Any]:
    """Seconds of a step, ours and theirs."""
    rows, images = 4, 5
    ids, pixels = encoded(pair, prompts_of(pair, rows, images, True))
    c, model = pair.ours.config, pair.ours.model
    mesh = meshes.make_mesh(1, 1, 1)
    how = OptimizerConfig(warmup_steps=0)
    optimizer = make_optimizer(how, 1000)
    _, shapes = state.lay_out(model, optimizer, TRAINED, mesh)
    where = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    # A copy, since the step donates its arguments.
    trained = {name: jax.tree.map(jnp.copy, pair.ours.params[name]) for name in TRAINED}
    new = state.TrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained), jax.random.key(0))
    kept = [jax.device_put(new, where)]
    frozen = {name: tree for name, tree in pair.ours.params.items() if name not in TRAINED}
    shown = pixels if source == 'pixels' else jax.jit(model.features)(pair.ours.params, pixels)
    used, unreadable = jnp.full(rows, ids.shape[1], jnp.int32), jnp.zeros(rows, jnp.int32)
    text = (jnp.asarray(ids), model.phi(jnp.asarray(ids)), jnp.ones(ids.shape), used, unreadable)
    batch = Interleaved(*text, **{'images' if source == 'pixels' else 'features': jnp.asarray(shown)})
    step = make_step(model, optimizer, {'x': 1.0}, {'x': 1}, NoiseConfig(), where)

    def ours() -> float:
        kept[0], metrics = step(kept[0], frozen, {'x': batch})
        return float(jax.block_until_ready(metrics)['loss'])

    x_ids, x = for_torch(pair, ids, pixels)
    parameters = [p for p in pair.theirs.parameters() if p.requires_grad]
    sizes = sum(leaf.size for leaf in jax.tree.leaves(trained)), sum(p.numel() for p in parameters)
    if sizes[0] != sizes[1]:
        raise RuntimeError(f'ours trains {sizes[0]:,} parameters, and theirs {sizes[1]:,}')
    before = [p.detach().clone() for p in parameters]
    adamw = torch.optim.AdamW(parameters, lr=how.learning_rate, weight_decay=how.weight_decay, fused=True)
    if source == 'features':
        with torch.no_grad():
            x = pair.features(x)

    def theirs() -> float:
        adamw.zero_grad()
        if source == 'features':
            logits = pair.logits_of_features(x_ids[:, :-1], x)
        else:
            logits = pair.theirs(**pair.inputs(x_ids[:, :-1], x)).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), x_ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, how.clip)
        adamw.step()
        return loss.item()

    losses = ours(), theirs()  # The first step compiles.
    if not abs(losses[0] - losses[1]) < TOLERANCE * abs(losses[1]):
        raise AssertionError(f'The losses are {losses[0]} and {losses[1]}.')
    ours(), theirs()
    runs = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    with torch.no_grad():
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)
            parameter.grad = None
    data = Documents(
        length=ids.shape[1], images=images, batch_size=rows, features=source if source == 'features' else ''
    )
    rate = bounds()
    bound = flops.train_step(c, TRAINED, {'x': data})['total'] / rate['flops']
    return dict(
        ours=[run[0] for run in runs], theirs=[run[1] for run in runs], losses=losses, bound=bound, machine=rate
    )


def ratio(theirs: list[float], ours: list[float]) -> str:
    """Median, least and greatest."""
    ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    return f'{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})'


def table(results: dict[str, Any]) -> str:
    """All cases, in Markdown."""
    lines = ['| training step | ours, s | theirs, s | theirs / ours | bound, s |', '|---|---|---|---|---|']
    median = statistics.median
    generations, pixels = [], {name: case for name, case in results.items() if name.endswith('training from pixels')}
    results = dict(results)
    for (
        name,
        case,
    ) in pixels.items():  # A user's choice, since theirs cannot be trained from features without changes.
        features = results.get(name.replace('pixels', 'features'))
        if features:
            mixed = dict(ours=features['ours'], theirs=case['theirs'], bound=features['bound'])
            results[name.replace('from pixels', 'ours from features, theirs from pixels')] = mixed
    for name, case in results.items():
        if 'generation' not in name:
            row = (name, f'{median(case["ours"]):.2f}', f'{median(case["theirs"]):.2f}')
            lines.append('| ' + ' | '.join((*row, ratio(case['theirs'], case['ours']), f'{case["bound"]:.2f}')) + ' |')
            continue
        ours, theirs = case['ours'], case['theirs']
        whole = [[f + NEW * t for f, t in zip(side['first'], side['token'], strict=True)] for side in (theirs, ours)]
        row = [name.replace('generation, ', '')] + [f'{1e3 * median(side["token"]):.1f}' for side in (ours, theirs)]
        row += [ratio(theirs['token'], ours['token']), f'{1e3 * case["bound"]:.1f}']
        row += [f'{median(ours["token"]) / case["bound"]:.2f}', ratio(*whole)]
        same = case['same_answers']
        row += ['' if same is None else f'{same:.0%}', str(theirs['tokens'])]
        generations.append('| ' + ' | '.join(row) + ' |')
    head = (
        'ours, ms a token | theirs | theirs / ours | bound | ours / bound | whole answer, theirs / ours | same | seen'
    )
    return '\n'.join([*lines, '', f'| generation | {head} |', '|---' * 9 + '|', *generations])


def main(arguments: argparse.Namespace) -> None:
    """Runs the cases that are not in the file, and prints the table."""
    logging.set_verbosity(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    results = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    cases = []
    for peer in arguments.peers:
        if 'training' in arguments.only:
            for source in ('pixels', 'features'):
                cases.append((peer, f'{peer}, training from {source}', functools.partial(training, source=source)))
        if 'generation' in arguments.only:
            for batch, beams, shots in itertools.product(arguments.batches, arguments.beams, arguments.shots):
                name = (
                    f'{peer}, generation, batch {batch}, {"greedy" if beams == 1 else f"{beams} beams"}, {shots} shots'
                )
                of = dict(shots=shots, batch=batch, beams=beams, patience=arguments.patience)
                cases.append((peer, name, functools.partial(generation, **of)))
    begin, made = time.perf_counter(), {}
    for number, (peer, name, case) in enumerate(cases):
        if name in results:
            continue
        if peer not in made:
            made.clear()
            with tempfile.TemporaryDirectory() as folder:
                made[peer] = dict(open_flamingo=open_flamingo, idefics=idefics)[peer](pathlib.Path(folder))
            counted = sum(leaf.size for leaf in jax.tree.leaves(made[peer].ours.params))
            print(
                f'{peer}: {counted / 1e6:.0f}M parameters, {token_bytes(made[peer]) / 1e6:.0f} MB a token', flush=True
            )
            print(f'  largest difference of the first logits {check_logits(made[peer]):.1e}', flush=True)
        results[name] = case(made[peer], repeats=arguments.repeats)
        arguments.out.write_text(json.dumps(results, indent=1))
        spent = time.perf_counter() - begin
        rate = results[name]['machine']
        print(
            f'{number + 1}/{len(cases)}, {spent:.0f} s: {name} '
            f'({rate["flops"] / 1e9:.0f} GFLOP/s, {rate["bytes"] / 1e9:.1f} GB/s)',
            flush=True,
        )
    print(table(results))


if __name__ == '__main__':
    main(ARGUMENTS)
