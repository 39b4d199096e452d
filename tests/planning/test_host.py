import dataclasses
import itertools

import jax
import jax.numpy as jnp
import pytest

from flamingo_jax.inputs import pipeline
from flamingo_jax.inputs.rows import Interleaved
from flamingo_jax.parallel.mesh import AXES, make_mesh
from flamingo_jax.planning import host
from flamingo_jax.planning.topology import parse
from flamingo_jax.training import config as training


@dataclasses.dataclass(frozen=True)
class Chip:
    """What `make_mesh` and `host.share` ask of a device."""

    id: int
    coords: tuple[int, ...] = ()
    process_index: int = 0
    device_kind: str = ''
    platform: str = 'gpu'
    core_on_chip: int = 0


def mesh_of(name, sizes):
    """The mesh on a machine that is not there: hosts of TPUs have 2 x 2 chips."""
    hardware, hosts = parse(name), {}
    if not hardware.chip.torus:
        return make_mesh(*sizes, devices=[Chip(i) for i in range(hardware.chips)])
    places = itertools.product(*(range(size) for size in (hardware.shape + (1,) * (3 - len(hardware.shape)))))
    kind = dict(device_kind=hardware.chip.device_kinds[0], platform='tpu')
    chips = [
        Chip(i, (x, y, z), hosts.setdefault((x // 2, y // 2, z), len(hosts)), **kind)
        for i, (x, y, z) in enumerate(places)
    ]
    return make_mesh(*sizes, devices=chips)


def test_the_papers_images_on_one_gpu():
    """64 x 10 images of pages, 1,024 pairs, 64 videos of 8 frames: an eighth of a host with 208 cores."""
    sources = {name: training.source_of(data) for name, data in training.paper('3b').datasets.items()}
    mesh = mesh_of('h100:1', (1, 1, 1))
    images = 64 * 10 + 1024 + 64 * 8
    assert host.seconds(sources, parse('h100:1'), mesh) == pytest.approx(images / 26 / host.IMAGES_A_SECOND)


@pytest.mark.parametrize(
    'name, sizes, share',
    [
        ('v4:8x12x16', (96, 1, 16), 4 / 96),  # The four chips of a host are of four groups of 16.
        ('v4:4x4x4', (16, 1, 4), 2 / 16),
        ('v5e-64', (1, 64, 1), 4 / 64),
        ('v5e-64', (16, 1, 4), 2 / 16),
        ('v5e-16', (8, 1, 2), 2 / 8),
        ('h100:1', (1, 1, 1), 1),
        ('h100:16', (2, 1, 8), 1 / 2),
        ('h100:16', (1, 8, 2), 4 / 8),
    ],
)
def test_the_share_of_a_host(name, sizes, share):
    assert dict(zip(AXES, sizes, strict=True)) == dict(mesh_of(name, sizes).shape)
    assert host.share(parse(name), mesh_of(name, sizes)) == share


def test_workers_hold_four_batches_each():
    """16 workers of the 3B's four data sets on one GPU: 64 times all batches of a step, 43 GB."""
    sources = {name: training.source_of(data) for name, data in training.paper('3b').datasets.items()}
    none = dict.fromkeys(Interleaved._fields)
    shapes = {
        name: Interleaved(**none | dict(images=jax.ShapeDtypeStruct((64, s.images, s.frames, 320, 320, 3), jnp.uint8)))
        for name, s in sources.items()
    }
    images = 64 * 10 + 2 * 64 * 8 + 64 * 8
    held = host.memory(sources, shapes, parse('h100:1'), mesh_of('h100:1', (1, 1, 1)))
    assert held == 4 * 16 * images * 320 * 320 * 3
    assert pipeline.held_ahead(16) == 64 and pipeline.held_ahead(0) == pipeline.THREADS + pipeline.AHEAD
