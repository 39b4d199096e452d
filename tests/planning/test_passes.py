"""The counted passes over the weights against the compiled program, whose loops are multiplied by their rounds."""

import collections
import dataclasses
import importlib
import math
import re

import jax
import pytest
from ml_collections import ConfigDict

from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.model.bridges.gated_xattn import GatedXattnConfig
from flamingo_jax.model.config import TINY, FlamingoConfig
from flamingo_jax.model.connectors.perceiver import PerceiverConfig
from flamingo_jax.model.vision.efficientnet import EfficientNetConfig
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.planning import hlo, passes, programs
from flamingo_jax.training import config as training
from flamingo_jax.training.config import machine, on_machine
from flamingo_jax.training.objectives.aligned import Aligned

pytestmark = pytest.mark.usefixtures('quick_compilation')
_DEFINED = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = \(?\w+\[([\d,]*)\]')
_DOT = re.compile(r' dot\(([^)]*)\)')


def products(text: str) -> collections.Counter:
    """(Shape of an operand, sorted) -> how often a step multiplies by a matrix of this shape."""
    computations, entry = hlo.computations(text)
    times = hlo.times_of(computations, entry)
    found = collections.Counter()
    for name, lines in computations.items():
        shapes = {defined[1]: defined[2] for defined in map(_DEFINED.match, lines) if defined}
        for line in lines:
            if dot := _DOT.search(line):
                for operand in re.findall(r'%([\w.\-]+)', dot[1]):
                    found[tuple(sorted(int(x) for x in shapes[operand].split(',')))] += times[name]
    return found


@pytest.fixture
def distinct(tiny):
    """A config whose weights have shapes that no activation has."""
    tiny.model = ConfigDict(
        FlamingoConfig(
            lm=dataclasses.replace(
                TINY['lm'], vocab_size=304, width=52, depth=4, heads=4, head_dim=12, ffw_width=72, context=64
            ),
            vision=EfficientNetConfig(stages=((1, 3, 1, 1, 8),), stem_width=8, head_width=26, resolution=16),
            resampler=PerceiverConfig(latents=5, width=34, depth=2, heads=2, head_dim=11, frames=4),
            xattn=GatedXattnConfig(every=2, heads=4, head_dim=14, ffw_multiplier=3),
            image_size=16,
        ).to_json()
    )
    tiny.model.lm.update(positions='rotary', kv_heads=4)
    tiny.datasets.videos.length = 10
    return tiny


@pytest.mark.parametrize(
    'remat, sizes, micro_batches',
    [
        ('full', (1, 1, 1), dict(pages=2, videos=1, pairs=4)),
        pytest.param('', (2, 2, 2), 1, marks=pytest.mark.long),
        pytest.param('dots', (1, 1, 1), 1, marks=pytest.mark.long),
    ],
)
def test_every_counted_pass_is_in_the_compiled_program(distinct, remat, sizes, micro_batches):
    distinct.remat = remat
    distinct.datasets.pairs = training.dataset(Documents, length=15, images=1, batch_size=8, row=Aligned)
    mesh = meshes.make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)])
    run = programs.prepare(on_machine(distinct, machine(*sizes, micro_batches)), mesh)
    lowered, _ = programs.train_step(run)
    found = products(lowered.compile().as_text())
    counted = collections.Counter()
    for one in passes.weights(run):
        if one.name.startswith('vision'):
            continue  # Convolutions.
        if 'project_' in one.name and mesh.shape['fsdp'] > 1:
            continue  # The compiler may multiply by a shard instead.
        stack = one.shape[0] if one.name.startswith(('lm/blocks', 'xattn', 'resampler/layers')) else 1
        shape = one.shape[1:] if stack > 1 else one.shape
        inputs = shape[:-1] if 'out/' in one.name else shape[:1]
        matrix = math.prod(inputs), math.prod(shape[len(inputs) :])
        counted[tuple(sorted(matrix))] += stack * one.times
    assert counted and {shape: found[shape] for shape in counted} == counted


@pytest.mark.parametrize(
    'size, mesh, micro_batches, names, gigabytes',
    [
        # 1.4B frozen: 24 blocks of 8 (2048 x 8192 up, 4 of 2048 x 2048 in attention, read 3 times; down twice; relative
        # twice) and the vocabulary of 32,000, read twice; 2 bytes each, 32 micro-batches of 4 data sets.
        (
            '3b',
            (1, 1, 1),
            32,
            'lm',
            2 * 32 * 4 * (24 * 2048**2 * (3 * (4 + 4) + 2 * 4 + 2) + 2 * 32_000 * 2048) / 1e9,
        ),
        # 1.2B trained: products read copies of 2 bytes.
        ('3b', (1, 1, 1), 32, 'xattn', 2 * 32 * 4 * 24 * 2048**2 * 3 * (4 + 8) / 1e9),
    ],
)
def test_passes_by_hand(size, mesh, micro_batches, names, gigabytes):
    config = importlib.import_module(f'experiments.flamingo_{size}').get_config()
    config.dtype = 'bfloat16'
    config = on_machine(config, machine(*mesh, micro_batches, remat='full'))
    run = programs.prepare(config, meshes.make_mesh(*mesh, devices=jax.devices()[:1]))
    read = sum(one.bytes * one.times for one in passes.weights(run) if one.name.startswith(names + '/'))
    assert read / 1e9 == pytest.approx(gigabytes, rel=1e-6)


def test_bytes_of_an_update_by_hand(tiny):
    """A matrix of 4 x 8 in bfloat16, whose gradient is cut in two: each data set writes it, and adds the half."""
    run = programs.prepare(tiny, meshes.make_mesh(2, 2, 2))
    held = {'xattn (float32)': 64, 'lm (frozen)': 1000, 'gradients': 64, 'moments': 128, 'copies': 32}
    one = passes.Weight('xattn/x', (4, 8), bytes=64, gathered=False, trained=True, times=2)
    frozen = one._replace(trained=False)
    gradients = 2 * (64 + 32 + 2 * 64)  # Two data sets.
    assert passes.update(run, [one, frozen], held) == gradients + 2 * 64 + 3 * 64 + 32 + 2 * 128
