import jax
import jax.numpy as jnp
import pytest

from flamingo_jax.inputs import pipeline
from flamingo_jax.inputs.rows import Interleaved
from flamingo_jax.parallel.mesh import AXES
from flamingo_jax.planning import host
from flamingo_jax.planning.topology import parse
from flamingo_jax.training import config as training


def test_the_papers_pictures_on_one_gpu():
    """64 x 10 pictures of pages, 1,024 pairs, 64 films of 8 frames: an eighth of a host with 208 cores."""
    sources = {name: training.source_of(data) for name, data in training.paper('3b').datasets.items()}
    mesh = dict(data=1, fsdp=1, tensor=1)
    pictures = 64 * 10 + 1024 + 64 * 8
    assert host.seconds(sources, parse('h100:1'), mesh) == pytest.approx(pictures / 26 / host.PICTURES_A_SECOND)


@pytest.mark.parametrize(
    'name, sizes, share',
    [
        ('v4:8x12x16', (96, 1, 16), 1 / 96),  # Four hosts read the same rows for the 16 chips that share them.
        ('v5e-64', (1, 64, 1), 8 / 64),
        ('v5e-64', (1, 16, 4), 2 / 16),
        ('h100:1', (1, 1, 1), 1),
    ],
)
def test_the_share_of_a_host(name, sizes, share):
    mesh = dict(zip(AXES, sizes, strict=True))
    assert host.share(parse(name), mesh) == share


def test_workers_hold_four_batches_each():
    """16 workers of the 3B's four data sets on one GPU: 64 times all batches of a step, 43 GB."""
    sources = {name: training.source_of(data) for name, data in training.paper('3b').datasets.items()}
    none = dict.fromkeys(Interleaved._fields)
    shapes = {
        name: Interleaved(**none | dict(images=jax.ShapeDtypeStruct((64, s.images, s.frames, 320, 320, 3), jnp.uint8)))
        for name, s in sources.items()
    }
    mesh = dict(data=1, fsdp=1, tensor=1)
    pictures = 64 * 10 + 2 * 64 * 8 + 64 * 8
    assert host.memory(sources, shapes, parse('h100:1'), mesh) == 4 * 16 * pictures * 320 * 320 * 3
    assert pipeline.held_ahead(16) == 64 and pipeline.held_ahead(0) == pipeline.THREADS + pipeline.AHEAD
