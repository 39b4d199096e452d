"""Compares speed with OpenFlamingo and IDEFICS: same weights, inputs, trained trees and threads, in float32.

    python -m benchmarks.peers --out=FILE.json [--theirs=PYTHON,PYTHON] [--threads=1]
        [--peers=idefics] [--only=generation] [--shots=4] [--batches=1] [--beams=1] [--ways=eager,compiled]

Needs the extra `parity` and open-flamingo (docs/checkpoints.md). `--theirs` names the interpreters of environments in
which the originals run, such as one with transformers 4.57 and one with 5; without it they run in this one. The models
have about 160M random parameters: an LM of width 768 with 6 layers and 32,000 tokens, a ViT-B/16 of 6 layers at 224
pixels, a gated block before every second layer, and 16 text tokens per image. The project's converters convert the
originals.

    training     a step of 4 rows of 5 images, with gradient clip and AdamW; from pixels and from features
    generation   32 new tokens after some examples and a last image, greedy and with 3 beams

Each side runs in a process of its own: ours, and each original as it is (`eager`) and with `torch.compile` of its parts
(`compiled`). The processes take turns, `--repeats` times. Each loads its model, and runs the case once cold, with all
compilation, and `--warm` times warm: as many on every side. All sides must train as many parameters, and agree in
losses, first logits and tokens. A ratio is theirs / ours: the median, with the least and the greatest of all turns.

Seconds are the processor's own with one thread, so that other work on the machine changes them less; otherwise those of
a clock. An original that takes longer than `--patience` seconds for its tokens is stopped. The time of its whole answer
is then that of the prompt plus 32 tokens at the measured rate.

Bounds are those of the machine, measured in each turn, by the faster of XLA and torch. A decoded token needs the longer
of two times: to read the weights once (bytes / bandwidth of a matrix-vector product), and to compute for all rows
(operations / rate of a matrix-matrix product). A training step computes. Cases already in --out are not run again, so
that a stopped run can resume.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

SIZES = dict(hidden_size=768, num_attention_heads=12, intermediate_size=2048, max_position_embeddings=1024)
WORDS, DEPTH, EVERY = 31_996, 6, 2  # Four control tokens in addition.
WORDS_A_IMAGE = dict(open_flamingo=14, idefics=13)  # With its tags, 16 tokens.
ROWS, IMAGES = 4, 5  # Of a training step.
NEW = 32
TOLERANCE = 1e-4  # Relative, of logits and losses.
TRAINED = ('resampler', 'xattn', 'extra_tokens')


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def several(kind: type, text: str) -> dict[str, Any]:
        return dict(type=lambda value: [kind(part) for part in value.split(',')], default=text)

    parser.add_argument('--out', type=pathlib.Path, required=True, help='JSON file of all figures')
    parser.add_argument('--theirs', **several(str, sys.executable), help='interpreters that run the originals')
    parser.add_argument('--threads', type=int, default=1, help='number of cores for each side, the first allowed ones')
    parser.add_argument('--peers', **several(str, 'open_flamingo,idefics'))
    parser.add_argument('--only', **several(str, 'training,generation'))
    parser.add_argument('--ways', **several(str, 'eager,compiled'))
    parser.add_argument('--sources', **several(str, 'pixels,features'))
    parser.add_argument('--shots', **several(int, '1,4,16'))
    parser.add_argument('--batches', **several(int, '1'))
    parser.add_argument('--beams', **several(int, '1,3'))
    parser.add_argument('--repeats', type=int, default=2, help='turns')
    parser.add_argument('--warm', type=int, default=2, help='warm runs of a process, after its cold one')
    parser.add_argument('--patience', type=float, default=30.0, help='seconds')
    parser.add_argument('--folder', type=pathlib.Path, help='for the models, which a later run then need not make')
    parser.add_argument('--side', help=argparse.SUPPRESS)  # What a process of this command does.
    parser.add_argument('--case', type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == '__main__':
    ARGUMENTS = parse()
    if ARGUMENTS.side:  # Both libraries count cores when they are imported.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: ARGUMENTS.threads])

import numpy as np  # noqa: E402


class Original:
    """An original with random parameters, always the same, and how it is called."""

    def __init__(self, peer: str, folder: pathlib.Path):
        """Makes it, and writes its files as they are published."""
        from tests import peers

        self.peer = peer
        if peer == 'open_flamingo':  # On a LLaMA, with frozen embeddings, which is an option of its training.
            vision = dict(image_size=224, layers=DEPTH, width=768, head_width=64, patch_size=16)
            sizes = SIZES | dict(num_key_value_heads=12)
            how = dict(words=WORDS, sizes=sizes, vision=vision)
            self.model, _ = peers.open_flamingo(folder, 'llama', EVERY, DEPTH, 0, **how)
            self.model.lang_encoder.get_input_embeddings().requires_grad_(False)
            return
        # With a resampler of the published shape, and norms of queries and keys.
        vision = dict(embed_dim=768, image_size=224, intermediate_size=3072, patch_size=16)
        vision |= dict(num_attention_heads=12, num_hidden_layers=DEPTH)
        perceiver = dict(resampler_n_latents=64, resampler_depth=6, resampler_n_heads=16, resampler_head_dim=96)
        how = dict(words=WORDS, sizes=SIZES, vision=vision, perceiver=perceiver)
        self.model = peers.idefics(folder / 'source', every=EVERY, depth=DEPTH, **how)
        for name, parameter in self.model.named_parameters():  # Its own choice of what is frozen trains the head.
            parameter.requires_grad_(any(part in name for part in ('perceiver', 'gated_cross_attn', 'additional')))

    def compile(self) -> None:
        """Has `torch.compile` take each part that has a forward pass of its own."""
        import torch

        whole = self.model
        parts = (
            (whole.lang_encoder, whole.perceiver, whole.vision_encoder) if self.peer == 'open_flamingo' else (whole,)
        )
        for part in parts:
            part.forward = torch.compile(part.forward)

    def inputs(self, ids, pixels) -> dict[str, Any]:
        """Arguments of its forward pass: ids [b l], and pixels [b n 1 3 height width] or None."""
        import torch

        if self.peer == 'open_flamingo':
            return dict(vision_x=pixels, lang_x=ids, attention_mask=torch.ones_like(ids))
        shown = ids == WORDS + 5  # After the token around it.
        n = int(shown.sum(1).max())
        seen = (shown.cumsum(1)[..., None] == torch.arange(1, n + 1)).long()
        images = {} if pixels is None else dict(pixel_values=pixels[:, :, 0])
        return dict(input_ids=ids, attention_mask=torch.ones_like(ids), image_attention_mask=seen) | images

    def features(self, pixels):
        """Of its trunk."""
        if self.peer == 'open_flamingo':
            return self.model.vision_encoder(pixels.flatten(0, 2))[1].unflatten(0, pixels.shape[:3])
        found = self.model.model.vision_model(pixel_values=pixels.flatten(0, 2)).last_hidden_state
        return found.unflatten(0, pixels.shape[:2])

    def logits_of_features(self, ids, features):
        """Its forward pass after the trunk."""
        import torch

        if self.peer == 'idefics':
            return self.model(**self.inputs(ids, None), image_encoder_embeddings=features).logits
        media = self.model.perceiver(features)  # OpenFlamingo has no argument for features.
        for layer in self.model.lang_encoder._get_decoder_layers():
            layer.condition_vis_x(media)
        self.model._condition_media_locations(input_ids=ids)
        return self.model.lang_encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def make(peer: str, folder: pathlib.Path, _: argparse.Namespace) -> None:
    """Writes the original and our bundle of it."""
    from flamingo_jax.checkpoints.converted import write
    from flamingo_jax.conversion import idefics, open_flamingo

    Original(peer, folder)
    files = ('checkpoint.pt', 'making', 'lm', 'clip.pt') if peer == 'open_flamingo' else ('source', 'making')
    files = [str(folder / name) for name in files]
    write(open_flamingo.convert, *files, heads=12) if peer == 'open_flamingo' else write(idefics.convert, *files)
    (folder / 'making').rename(folder / 'bundle')


def prompts_of(peer: str, rows: int, shots: int, ends: bool) -> list[list[Any]]:
    """Examples of 16 tokens each, and in generation a last image with the beginning of its text."""
    rng = np.random.default_rng(0)
    end = '<EOC>' if peer == 'open_flamingo' else ''
    prompts = []
    for _ in range(rows):
        prompt = []
        for _ in range(shots):
            words = ' '.join(f'w{i}' for i in rng.integers(0, WORDS, WORDS_A_IMAGE[peer]))
            prompt += [rng.integers(0, 256, (224, 224, 3), np.uint8), words + end]
        last = [] if ends else [rng.integers(0, 256, (224, 224, 3), np.uint8), 'w1 w2 w3 w4']
        prompts.append(prompt + last)
    return prompts


def prompts_of_case(case: dict[str, Any]) -> list[list[Any]]:
    """The prompts of a case."""
    if case['kind'] == 'training':
        return prompts_of(case['peer'], ROWS, IMAGES, ends=True)
    return prompts_of(case['peer'], case['batch'], case['shots'], ends=False)


def given(folder: pathlib.Path, case: dict[str, Any]) -> pathlib.Path:
    """Where our side leaves what the other is given: ids, pixels, and tokens that must not be chosen."""
    return folder / f'{"_".join(map(str, case.values()))}.npz'


def opened(folder: pathlib.Path, case: dict[str, Any]) -> tuple[Any, np.ndarray, np.ndarray]:
    """Our model, and ids [b l] and pixels uint8 [b n 1 224 224 3] of the case's prompts, as in `Pretrained`."""
    from flamingo_jax import memory
    from flamingo_jax.inference import pretrained
    from flamingo_jax.inputs.prompts import encode_prompt

    memory.keep_freed()
    model = pretrained.load(folder / 'bundle')
    rows = [encode_prompt(prompt, model.tokenizer, model.image_format) for prompt in prompts_of_case(case)]
    return model, np.array([ids for ids, _ in rows], np.int32), np.stack([np.stack(images) for _, images in rows])


def clock() -> float:
    """Seconds: the processor's own with one thread, with those of the compilers that it starts; else of a clock."""
    return sum(os.times()[:4]) if ARGUMENTS.threads == 1 else time.perf_counter()


def banned_tokens(tokenizer: Any, config: Any) -> list[int]:
    """Tokens that end an answer, and tags of images: without them each answer has all its tokens."""
    extra = (config.lm.vocab_size + i for i in range(len(config.extra_tokens)))
    return sorted({tokenizer.pad, tokenizer.bos, *tokenizer.ends, *extra})


def ours(peer: str, folder: pathlib.Path, a: argparse.Namespace) -> dict[str, Any]:
    """Our side of a case; also what the other side is given, and operations and bytes for the bounds."""
    import jax

    from flamingo_jax.inference import search
    from flamingo_jax.inference.sampling import Sampling
    from flamingo_jax.planning import flops

    model, ids, pixels = opened(folder, a.case)
    c = model.config
    banned = banned_tokens(model.tokenizer, c)
    np.savez(given(folder, a.case), ids=ids, pixels=pixels, banned=banned, mean=c.vision.mean, std=c.vision.std)
    if a.case['kind'] == 'training':
        step, parameters, operations = training_step(model, ids, pixels, a.case['source'])
        runs = [timed(step) for _ in range(1 + a.warm)]
        passes, losses = [dict(whole=spent) for spent, _ in runs], [loss for _, loss in runs]
        return dict(passes=passes, losses=losses, trained=parameters, flops=operations, bytes=0)
    prompts, beams = prompts_of_case(a.case), a.case['beams']
    passes = []
    for _ in range(1 + a.warm):
        fresh = dataclasses.replace(model)  # It has the same compiled programs, and has seen no image.
        begin = clock()
        read = jax.block_until_ready(fresh.read(prompts, NEW))
        first = clock() - begin
        how = jax.random.key(0), Sampling(NEW, beams), search.Marks((-1,), tuple(banned))
        tokens = np.asarray(search.answer(*fresh.by_token, read, *how))
        whole = clock() - begin
        passes.append(dict(first=first, token=(whole - first) / (NEW - 1), whole=whole))
    operations = flops.decode_step(c, len(prompts) * beams, ids.shape[1] + NEW, 1)
    found = dict(tokens=tokens.tolist(), logits=np.asarray(logits).tolist(), flops=operations)
    return dict(passes=passes, bytes=token_bytes(model), **found)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, and its result."""
    begin = clock()
    result = function()
    return clock() - begin, result


def token_bytes(model: Any) -> int:
    """Bytes of weights that a decoded token reads: all but the LM's input and the gated blocks' maps of media."""
    import jax

    params, c = model.params, model.config
    embedder = params['lm']['embedder']
    read = [params['lm']['blocks'], embedder['tokens'] if c.lm.tied else embedder['output'], embedder['norm_out']]
    read += [part for name, part in params['xattn'].items() if name not in ('key', 'value', 'norm_key', 'norm_media')]
    return sum(leaf.nbytes for leaf in jax.tree.leaves(read))


def training_step(model: Any, ids: np.ndarray, pixels: np.ndarray, source: str):
    """A function that takes a step and returns its loss, the number of trained parameters, and the operations."""
    import jax
    import jax.numpy as jnp

    from flamingo_jax.inputs.rows import Interleaved
    from flamingo_jax.inputs.sources.documents import Documents
    from flamingo_jax.parallel import mesh as meshes
    from flamingo_jax.planning import flops
    from flamingo_jax.training import state
    from flamingo_jax.training.objectives.noise import NoiseConfig
    from flamingo_jax.training.optimizer import OptimizerConfig, make_optimizer
    from flamingo_jax.training.step import make_step

    net = model.model
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=0), 1000)
    _, shapes = state.lay_out(net, optimizer, TRAINED, meshes.make_mesh(1, 1, 1))
    where = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    trained = {name: model.params[name] for name in TRAINED}
    new = state.TrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained), jax.random.key(0))
    kept = [jax.device_put(new, where)]
    frozen = {name: tree for name, tree in model.params.items() if name not in TRAINED}
    shown = pixels if source == 'pixels' else jax.jit(net.features)(model.params, pixels)
    used, unreadable = jnp.full(ROWS, ids.shape[1], jnp.int32), jnp.zeros(ROWS, jnp.int32)
    text = (jnp.asarray(ids), net.phi(jnp.asarray(ids)), jnp.ones(ids.shape), used, unreadable)
    batch = Interleaved(*text, **{'images' if source == 'pixels' else 'features': jnp.asarray(shown)})
    step = make_step(net, optimizer, {'x': 1.0}, {'x': 1}, NoiseConfig(), where)

    def run() -> float:
        kept[0], metrics = step(kept[0], frozen, {'x': batch})
        return float(jax.block_until_ready(metrics)['loss'])

    how = dict(length=ids.shape[1], images=IMAGES, batch_size=ROWS, features='' if source == 'pixels' else source)
    operations = flops.train_step(model.config, TRAINED, {'x': Documents(**how)})['total']
    return run, sum(leaf.size for leaf in jax.tree.leaves(trained)), operations


def theirs(peer: str, folder: pathlib.Path, a: argparse.Namespace) -> dict[str, Any]:
    """The other side of a case."""
    import torch
    from transformers import StoppingCriteria

    from flamingo_jax.training.optimizer import OptimizerConfig

    torch.set_num_threads(a.threads)
    with tempfile.TemporaryDirectory() as own:
        original = Original(peer, pathlib.Path(own))
    shown = np.load(given(folder, a.case))
    ids = torch.from_numpy(shown['ids']).long()
    pixels = (shown['pixels'].astype(np.float32) / 255 - shown['mean'].astype(np.float32)) / shown['std']
    pixels = torch.from_numpy(np.moveaxis(pixels.astype(np.float32), -1, -3).copy())
    if a.side == 'compiled':
        original.compile()
    if a.case['kind'] == 'training':
        how = OptimizerConfig()
        parameters = [p for p in original.model.parameters() if p.requires_grad]
        adamw = torch.optim.AdamW(parameters, lr=how.learning_rate, weight_decay=how.weight_decay, fused=True)
        if a.case['source'] == 'features':
            with torch.no_grad():
                pixels = original.features(pixels)

        def step() -> float:
            adamw.zero_grad()
            if a.case['source'] == 'features':
                logits = original.logits_of_features(ids[:, :-1], pixels)
            else:
                logits = original.model(**original.inputs(ids[:, :-1], pixels)).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, how.clip)
            adamw.step()
            return loss.item()

        runs = [timed(step) for _ in range(1 + a.warm)]
        passes, losses = [dict(whole=spent) for spent, _ in runs], [loss for _, loss in runs]
        return dict(passes=passes, losses=losses, trained=sum(p.numel() for p in parameters))

    class Clock(StoppingCriteria):
        """Records the time of each new token; stops after `patience` seconds."""

        def __init__(self):
            self.times = []

        def __call__(self, input_ids, scores, **kwargs):
            self.times.append(clock())
            late = len(self.times) > 2 and self.times[-1] - self.times[0] > a.patience
            return torch.full((input_ids.shape[0],), late)

    how = dict(max_new_tokens=NEW, num_beams=a.case['beams'], do_sample=False, length_penalty=0.0, pad_token_id=0)
    how |= dict(eos_token_id=2, suppress_tokens=shown['banned'].tolist())
    passes = []
    with torch.no_grad():
        for _ in range(1 + a.warm):
            begin, times = clock(), Clock()
            out = original.model.generate(**original.inputs(ids, pixels), **how, stopping_criteria=[times])
            whole, first = clock() - begin, times.times[0] - begin
            token = (times.times[-1] - times.times[0]) / (len(times.times) - 1)
            whole = whole if len(times.times) == NEW else first + (NEW - 1) * token
            passes.append(dict(first=first, token=token, whole=whole))
        logits = original.model(**original.inputs(ids, pixels)).logits[:, -1]
    return dict(passes=passes, tokens=out[:, ids.shape[1] :].tolist(), logits=logits.tolist())


def machine(peer: str, folder: pathlib.Path, a: argparse.Namespace) -> dict[str, float]:
    """FLOP/s of matrix times matrix, bytes/s of vector times matrix: the better of both libraries, the best of six."""
    import jax
    import jax.numpy as jnp
    import torch

    torch.set_num_threads(a.threads)
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
    best = [min(timed(f)[0] for f in (f1, f2) for _ in range(6)) for f1, f2 in (matrix, vector)]
    return dict(flops=2 * n**3 / best[0], bytes=many * weights[0].nbytes / best[1])


def start(python: str, side: str, peer: str, folder: pathlib.Path, case: dict[str, Any], a: argparse.Namespace) -> Any:
    """The figures of a process of this command."""
    with tempfile.TemporaryDirectory() as fresh:
        file = pathlib.Path(fresh, 'out.json')
        line = [python, '-m', 'benchmarks.peers', f'--out={file}']
        line += [f'--side={side}', f'--folder={folder}', f'--peers={peer}']
        line += [f'--case={json.dumps(case)}', f'--threads={a.threads}', f'--warm={a.warm}', f'--patience={a.patience}']
        # Idle threads of torch would keep cores busy. Each process compiles anew, and by itself.
        quiet = dict(OMP_WAIT_POLICY='passive', GOMP_SPINCOUNT='0', TORCHINDUCTOR_COMPILE_THREADS='1')
        subprocess.run(line, check=True, env=os.environ | quiet | dict(TORCHINDUCTOR_CACHE_DIR=fresh))
        return json.loads(file.read_text())


def check(mine: dict[str, Any], other: dict[str, Any], side: str) -> None:
    """Both sides trained the same trees and had the same losses, or the same first logits and tokens.

    Raises:
      AssertionError: they did not.
    """
    if 'losses' in mine:
        pairs = [(mine['trained'], other['trained'], 0.0)]
        pairs += [(x, y, TOLERANCE * abs(y)) for x, y in zip(mine['losses'], other['losses'], strict=True)]
        if any(abs(x - y) > most for x, y, most in pairs):
            raise AssertionError(f'Ours and {side} trained (parameters, then losses) {pairs}.')
        return
    x, y = (np.array(one['logits']) for one in (mine, other))
    difference = np.abs(x - y).max() / np.abs(y).max()
    x, y = (np.array(one['tokens']) for one in (mine, other))
    if difference > TOLERANCE or (x[:, : y.shape[1]] != y).any():
        raise AssertionError(f'Logits of ours and {side} differ by {difference:.1e} of the largest, or tokens do.')


def ratio(theirs: list[float], ours: list[float]) -> str:
    """Median, least and greatest."""
    ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    return f'{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})'


def seconds(runs: list[dict[str, Any]], of: str, warm: bool) -> list[float]:
    """Of each process, those of its cold pass, or the median of its warm ones."""
    return [statistics.median(one[of] for one in (run['passes'][1:] if warm else run['passes'][:1])) for run in runs]


def table(results: dict[str, Any]) -> str:
    """All cases, in Markdown."""
    median = statistics.median
    steps = [
        '| training step | side | cold, s | theirs / ours | warm, s | theirs / ours | bound, s |',
        '|---' * 7 + '|',
    ]
    answers = ['| generation | side | cold answer, s | theirs / ours | warm answer, s | theirs / ours '
               '| warm, ms a token | theirs / ours | bound, ms |', '|---' * 9 + '|']  # fmt: skip
    for name, case in results.items():
        mine = case['sides']['ours']
        rate = case['machine']
        bound = max(mine[0]['bytes'] / rate['bytes'], mine[0]['flops'] / rate['flops'])
        for side, runs in case['sides'].items():

            def cells(of, warm, factor=1, digits=2, runs=runs, side=side, mine=mine):
                both = seconds(runs, of, warm), seconds(mine[: len(runs)], of, warm)
                return [f'{factor * median(both[0]):.{digits}f}', '' if side == 'ours' else ratio(*both)]

            if 'training' in name:
                row = [*cells('whole', False), *cells('whole', True), f'{bound:.2f}']
                steps.append('| ' + ' | '.join([name, side, *row]) + ' |')
            else:
                row = [*cells('whole', False), *cells('whole', True), *cells('token', True, 1e3, 1)]
                answers.append('| ' + ' | '.join([name, side, *row, f'{1e3 * bound:.1f}']) + ' |')
    return '\n'.join([*steps, '', *answers])


def cases(a: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Name -> what is measured."""
    found = {}
    for peer in a.peers:
        for source in a.sources if 'training' in a.only else ():
            found[f'{peer}, training from {source}'] = dict(peer=peer, kind='training', source=source)
        if 'generation' in a.only:
            for batch, beams, shots in itertools.product(a.batches, a.beams, a.shots):
                name = (
                    f'{peer}, generation, batch {batch}, {"greedy" if beams == 1 else f"{beams} beams"}, {shots} shots'
                )
                found[name] = dict(peer=peer, kind='generation', shots=shots, batch=batch, beams=beams)
    return found


def main(a: argparse.Namespace) -> None:
    """Runs what is not in the file, and prints the table."""
    results = json.loads(a.out.read_text()) if a.out.is_file() else {}
    ask = "from importlib.metadata import version; print(version('transformers'), version('torch'))"
    sides = {}
    for python in a.theirs:
        versions = subprocess.run([python, '-c', ask], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        for way in a.ways:
            sides[f'transformers {versions[0]}, torch {versions[1]}, {way}'] = python, way
    with tempfile.TemporaryDirectory() as temporary:
        for name, case in cases(a).items():
            folder = (a.folder or pathlib.Path(temporary)) / case['peer']
            if not (folder / 'bundle').is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                start(a.theirs[-1], 'make', case['peer'], folder, case, a)
            found = results.setdefault(name, dict(sides=dict(ours=[])))
            for turn in range(a.repeats):
                for side, (python, way) in (dict(ours=(sys.executable, 'ours')) | sides).items():
                    runs = found['sides'].setdefault(side, [])
                    if len(runs) > turn:
                        continue
                    if way != 'ours' and not given(folder, case).is_file():
                        raise ValueError(f'{a.out} has our side of {name!r} of another --folder. Give that one.')
                    runs.append(start(python, way, case['peer'], folder, case, a))
                    if way != 'ours':
                        check(found['sides']['ours'][turn], runs[-1], side)
                    a.out.write_text(json.dumps(results, indent=1))
                    print(f'{name}, turn {turn + 1}, {side}', flush=True)
            if 'machine' not in found:
                found['machine'] = start(a.theirs[-1], 'machine', case['peer'], folder, case, a)
                a.out.write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == '__main__':
    if ARGUMENTS.side:
        does = dict(make=make, ours=ours, eager=theirs, compiled=theirs, machine=machine)[ARGUMENTS.side]
        done = does(ARGUMENTS.peers[0], ARGUMENTS.folder, ARGUMENTS)
        ARGUMENTS.out.write_text(json.dumps(done))
    else:
        main(ARGUMENTS)
