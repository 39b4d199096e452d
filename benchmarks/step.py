"""Times the jitted train step on the devices of this machine, with random weights and data.

    python -m benchmarks.step --mixture [--profile=FOLDER] [--steps=10]

The paper's four data sets, a 16th of their batches, in the tiny model: as one document a row with one number of
micro-batches for all sets (before), and packed, with a number for each set (after). Both hold the same documents, and
take turns in one run. Time is also the processor's own, for a machine that has other work. `--profile` keeps a trace of
a step of each for TensorBoard and Perfetto, and prints where its time went.

    python -m benchmarks.step [--shapes=tiny,3b_page] [--steps=10]

A table of shapes of one data set. Operations are those of `planning/flops.py`, without recomputation, padding included.
"""

import argparse
import collections
import dataclasses
import pathlib
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import padding
from flamingo_jax.inputs.rows import Batch
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.model.config import SIZES, FlamingoConfig
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.planning import flops, programs, topology
from flamingo_jax.training import config as training
from flamingo_jax.training.optimizer import OptimizerConfig, make_optimizer
from flamingo_jax.training.state import new_state


@dataclasses.dataclass(frozen=True)
class Shape:
    """One row of the table: a size of `SIZES`, and a batch."""

    size: str
    batch_size: int  # Sequences per step and device.
    length: int
    images: int
    image_size: int
    depth: int = 0  # Depth of the language model; 0 is the size's own.
    micro_batches: int = 1
    remat: str = ''
    features: str = ''  # Not empty: the trunk's features are read, not computed.


SHAPES = {
    'tiny': Shape('tiny', 32, 48, 8, 160, features='yes'),
    'tiny_pixels': Shape('tiny', 8, 48, 4, 160),
    '3b_4_layers': Shape('3b', 16, 256, 5, 320, depth=4, features='yes'),
    '3b_page': Shape('3b', 16, 256, 5, 320, remat='full', features='yes'),
    '3b_page_pixels': Shape('3b', 8, 256, 5, 320, remat='full'),
    '3b_pair': Shape('3b', 64, 64, 1, 320, remat='full', features='yes'),
    '3b_page_64': Shape('3b', 64, 256, 5, 320, micro_batches=4, remat='full', features='yes'),
}


def config_of(shape: Shape) -> ConfigDict:
    """The run of a row, with every device on the fsdp axis."""
    parts = dict(SIZES[shape.size])
    if shape.depth:
        parts['lm'] = dataclasses.replace(parts['lm'], depth=shape.depth)
    c = training.base()
    c.model = ConfigDict(FlamingoConfig(**parts, image_size=shape.image_size).to_json())
    c.remat, c.micro_batches = shape.remat, shape.micro_batches
    c.datasets.x = training.dataset(
        Documents,
        length=shape.length,
        images=shape.images,
        batch_size=shape.batch_size * jax.device_count(),
        features=shape.features,
    )
    return c


def mixture(packed: bool) -> ConfigDict:
    """The paper's recipe for the tiny model, packed or one document a row, with a 16th of its batches."""
    c = training.paper('3b')
    lm = dataclasses.replace(SIZES['tiny']['lm'], context=256)
    c.model = ConfigDict(FlamingoConfig(**SIZES['tiny'] | dict(lm=lm), image_size=96).to_json())
    sources = {name: training.source_of(data) for name, data in c.datasets.items()}
    sources = sources if packed else padding.alone(sources)
    for name, source in sources.items():
        numbers = dict(batch_size=source.batch_size // 16, micro_batches=4 if name == 'm3w' or not packed else 1)
        c.datasets[name] = training.dataset(type(source), **vars(dataclasses.replace(source, **numbers, workers=0)))
    return c


def random_batch(run: programs.Planned, name: str) -> Batch:
    """Sequences of random tokens, with evenly spaced images."""
    data = run.sources[name]
    rng, vocabulary = np.random.default_rng(0), run.model.config.lm.vocab_size

    def draw(name, like):
        if name == 'phi':
            row = 1 + np.arange(data.length) * data.images // data.length
            value = np.broadcast_to(row, like.shape)
        elif name == 'weights':
            value = np.ones(like.shape)
        elif name == 'images':
            value = rng.integers(0, 256, like.shape)
        elif name == 'features':
            value = rng.random(like.shape, np.float32)
        else:
            value = rng.integers(0, vocabulary, like.shape) if name == 'tokens' else np.zeros(like.shape)
        return jax.device_put(value.astype(like.dtype), like.sharding)

    shapes = run.parts.batch_shapes(run.mesh)[name]
    return shapes._replace(**{name: draw(name, like) for name, like in shapes._asdict().items() if like is not None})


@dataclasses.dataclass(frozen=True)
class Made:
    """A compiled step with what it takes."""

    run: programs.Planned
    step: Any
    seconds: float  # To compile.
    go: Callable[[], None]  # One step.


def make(config: ConfigDict) -> Made:
    """The step of a config on all devices, which are on the fsdp axis."""
    run = programs.prepare(config, meshes.make_mesh(1, -1, 1))
    since = time.perf_counter()
    step = programs.train_step(run)[0].compile()
    compiled = time.perf_counter() - since
    optimizer = make_optimizer(OptimizerConfig(**config.optimizer.to_dict()), config.steps)
    state = [new_state(run.model, optimizer, run.trained, seed=0, mesh=run.mesh)]
    like = run.frozen()

    def make_frozen(key):
        made = nn.meta.unbox(run.model.init(key))
        if 'vision' in like and (kept := run.model.config.vision.kept):
            made['vision'] = kept(made['vision'])
        return jax.tree.map(lambda x, as_: x.astype(as_.dtype), {name: made[name] for name in like}, like)

    frozen = jax.jit(make_frozen, out_shardings=jax.tree.map(lambda x: x.sharding, like))(jax.random.key(1))
    batches = {name: random_batch(run, name) for name in run.sources}

    def go() -> None:
        state[0], metrics = step(state[0], frozen, batches)
        jax.block_until_ready(metrics)

    return Made(run, step, compiled, go)


def measure(shape: Shape, steps: int) -> str:
    """A line of the table."""
    made = make(config_of(shape))
    times = []
    for _ in range(steps + 2):  # The first two warm up.
        since = time.perf_counter()
        made.go()
        times.append(time.perf_counter() - since)
    seconds, run = statistics.median(times[2:]), made.run
    operations = flops.train_step(run.model.config, run.trained, run.sources)['total']
    (data,) = run.sources.values()
    peak = topology.peak_flops(jax.devices()[0].device_kind)
    tokens, images = data.batch_size * data.length / seconds, data.batch_size * data.images / seconds
    part = f'{operations / seconds / peak / jax.device_count():.1%}' if peak else '-'
    speed = f'{seconds * 1e3:9.1f} {tokens:12,.0f} {images:10,.1f}'
    return f'{speed} {operations / 1e12:9.2f} {operations / seconds / 1e12:9.2f} {part:>7} {made.seconds:9.1f}'


def compare(steps: int, profile: pathlib.Path | None) -> None:
    """Prints the times of both ways to train the mixture, their ratio, and what is in the profiles."""
    ways = {name: make(mixture(packed)) for name, packed in (('before', False), ('after', True))}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(steps + 1):  # The first warms up.
        for name, made in ways.items():
            since = time.perf_counter(), time.process_time()
            made.go()
            found[name] += [(time.perf_counter() - since[0], time.process_time() - since[1])] if turn else []
    for i, clock in enumerate(('seconds', "processor's own seconds")):
        both = [[times[i] for times in found[name]] for name in ways]
        ratios = sorted(a / b for a, b in zip(*both, strict=True))
        medians = ', '.join(f'{name} {statistics.median(of):.2f}' for name, of in zip(ways, both, strict=True))
        print(f'{clock}: {medians}, ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})')
    done = [flops.train_step(made.run.model.config, made.run.trained, made.run.sources) for made in ways.values()]
    whole = [one['total'] + one['recomputed'] for one in done]
    print(f'operations: before {whole[0] / 1e9:.0f}, after {whole[1] / 1e9:.0f} GFLOP, ratio {whole[0] / whole[1]:.2f}')
    for name, made in ways.items() if profile else ():
        with jax.profiler.trace(str(profile / name)):
            made.go()
        total = where(profile / name, made.step.as_text())
        print(f'{name}: ' + ', '.join(f'{part} {share:.0%}' for part, share in total.items()))


# Names in the program -> parts of the model, the first that fits. Forward and backward have the same.
PARTS = dict(
    trunk=r'VisionEncoder|vision',
    connector='Perceiver|QFormer|Mlp|Pooling',
    bridge='XattnDense|GatedPrefix',
    language_model='Block|Embedder',
    loss_and_logits='loss|logits|softmax',
    update='adam|learn|cond',
)


def where(folder: pathlib.Path, hlo: str) -> dict[str, float]:
    """Part of the model -> its share of the time of all instructions in a trace, by their names in the program."""
    names = dict(re.findall(r'%?([\w.\-]+) = .*?op_name="([^"]*)"', hlo))
    inner = re.compile(r'(while|call|conditional|tuple|parameter)[.\d]*$')  # Their time is that of what they run.
    spent = collections.Counter()
    (file,) = folder.rglob('*.xplane.pb')
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in names and not inner.match(event.name):
                    fits = (part for part, of in PARTS.items() if re.search(of, names[event.name]))
                    spent[next(fits, 'other')] += event.duration_ns
    return {part: time / spent.total() for part, time in spent.most_common()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shapes', default='', help=f'of {", ".join(SHAPES)}; on a CPU tiny and tiny_pixels, else all')
    parser.add_argument('--steps', type=int, default=10, help='number of steps for the median, after two for warm-up')
    parser.add_argument('--mixture', action='store_true', help='compare two ways to train the four data sets')
    parser.add_argument('--profile', type=pathlib.Path, help='folder for the traces of --mixture')
    arguments = parser.parse_args()
    if arguments.mixture:
        compare(arguments.steps, arguments.profile)
        return
    names = arguments.shapes.split(',') if arguments.shapes else list(SHAPES)
    if not arguments.shapes and jax.default_backend() == 'cpu':
        names = ['tiny', 'tiny_pixels']
    print(
        f'{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}, median of {arguments.steps} '
        'steps'
    )
    print(
        f'{"shape":16} {"ms":>9} {"tokens/s":>12} {"images/s":>10} {"TFLOP":>9} {"TFLOP/s":>9} {"MFU":>7} '
        f'{"compile s":>9}'
    )
    for name in names:
        try:
            line = measure(SHAPES[name], arguments.steps)
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' not in str(error):
                raise
            line = '  does not fit'
        print(f'{name:16} {line}', flush=True)


if __name__ == '__main__':
    main()
