"""The machines of the paper's sizes, as their configs name them: the mesh of each divides the model and the batches."""

import importlib
import math

import pytest

from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.planning import topology
from flamingo_jax.training.config import on_machine
from tests.parallel.test_rules import Device

RENTED = [f'v5e-{n}' for n in (8, 16, 32, 64, 128, 256)] + [f'v5p-{n}' for n in (8, 16, 32, 64, 128)]
RENTED += [f'v6e-{n}' for n in (8, 16, 32, 64, 128, 256)] + [f'h100:{n}' for n in (1, 2, 4, 8, 16, 32, 64)]
RENTED += ['a100:8', 'l4:8']


@pytest.mark.parametrize('size', ['3b', '9b', '80b'])
def test_each_machine_takes_the_whole_of_itself(size):
    config = importlib.import_module(f'experiments.flamingo_{size}').get_config()
    assert size == '80b' or set(RENTED) < set(config.machines)
    for name, how in config.machines.items():
        chips = topology.parse(name).chips
        assert math.prod(how.mesh.values()) == chips, name
        on = on_machine(config, how)
        parts = {data: source.micro_batches for data, source in on.datasets.items()}
        assert parts['m3w'] == max(parts.values()), name  # The longest rows.
        assert on.model.lm.heads % how.mesh.tensor == 0 and on.model.xattn.heads % how.mesh.tensor == 0, name
        mesh = meshes.make_mesh(**how.mesh, devices=[Device(i, 'gpu', 0, (i,)) for i in range(chips)])
        for data, source in on.datasets.items():
            meshes.check_batch(data, source.batch_size, source.micro_batches, mesh)
