"""Times the jitted train step on the devices of this machine, for a table of shapes, with random weights and data.

    python benchmarks/step.py [--shapes=tiny,3b_page] [--steps=10]

Operations are those of `planning/flops.py`, without recomputation, so that the share of the peak (MFU) is useful work.
"""

import argparse
import dataclasses
import statistics
import time

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from flamingo_jax.inputs.rows import Batch
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.inputs.sources.source import Source
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


def random_batch(run: programs.Planned, data: Source) -> Batch:
    """Sequences of random tokens, with evenly spaced pictures."""
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

    shapes = run.parts.batch_shapes(run.mesh)['x']
    return shapes._replace(**{name: draw(name, like) for name, like in shapes._asdict().items() if like is not None})


def measure(shape: Shape, steps: int) -> str:
    """A line of the table."""
    config = config_of(shape)
    mesh = meshes.make_mesh(1, -1, 1)
    run = programs.prepare(config, mesh, shape.micro_batches, batch=1.0)
    since = time.perf_counter()
    step = programs.train_step(run)[0].compile()
    compiled = time.perf_counter() - since
    optimizer = make_optimizer(OptimizerConfig(**config.optimizer.to_dict()), config.steps)
    state = new_state(run.model, optimizer, run.trained, seed=0, mesh=mesh)
    like = run.frozen()

    def make_frozen(key):
        made = nn.meta.unbox(run.model.init(key))
        return jax.tree.map(lambda x, as_: x.astype(as_.dtype), {name: made[name] for name in like}, like)

    frozen = jax.jit(make_frozen, out_shardings=jax.tree.map(lambda x: x.sharding, like))(jax.random.key(1))
    batches = {name: random_batch(run, data) for name, data in run.sources.items()}
    times = []
    for _ in range(steps + 2):  # The first two warm up.
        since = time.perf_counter()
        state, metrics = step(state, frozen, batches)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - since)
    seconds = statistics.median(times[2:])
    operations = flops.train_step(run.model.config, run.trained, run.sources)['total']
    (data,) = run.sources.values()
    peak = topology.peak_flops(jax.devices()[0].device_kind)
    tokens, images = data.batch_size * data.length / seconds, data.batch_size * data.images / seconds
    part = f'{operations / seconds / peak / jax.device_count():.1%}' if peak else '-'
    speed = f'{seconds * 1e3:9.1f} {tokens:12,.0f} {images:10,.1f}'
    return f'{speed} {operations / 1e12:9.2f} {operations / seconds / 1e12:9.2f} {part:>7} {compiled:9.1f}'


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shapes', default='', help=f'of {", ".join(SHAPES)}; on a CPU tiny and tiny_pixels, else all')
    parser.add_argument('--steps', type=int, default=10, help='number of steps for the median, after two for warm-up')
    arguments = parser.parse_args()
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
