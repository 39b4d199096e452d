"""Flamingo-9B by the paper's recipe. Nobody has run it with this code. `plan` says what it needs:

    python -m flamingo_jax.plan --config=experiments/flamingo_9b.py --topology=v5e-64

It needs bundles/lm, bundles/nfnet_f6 and the four data sets. The docstring of experiments/flamingo_3b.py has the
commands that make them, and that train on the machine that was planned for.
"""

from ml_collections import ConfigDict

from flamingo_jax.training import config as training

# As in experiments/flamingo_3b.py.
MACHINES = {
    'v4:4x4x4': ((16, 1, 4), (1, 1, 1, 1)),
    'v5e-8': ((1, 1, 8), (64, 16, 32, 8)),
    'v5e-16': ((2, 1, 8), (8, 2, 4, 1)),
    'v5e-32': ((8, 1, 4), (8, 2, 4, 1)),
    'v5e-64': ((16, 1, 4), (4, 1, 2, 1)),
    'v5e-128': ((32, 1, 4), (2, 1, 1, 1)),
    'v5e-256': ((64, 1, 4), (1, 1, 1, 1)),
    'v5p-8': ((4, 1, 1), (2, 1, 1, 1)),
    'v5p-16': ((8, 1, 1), (1, 1, 1, 1)),
    'v5p-32': ((16, 1, 1), (1, 1, 1, 1)),
    'v5p-64': ((32, 1, 1), (1, 1, 1, 1)),
    'v5p-128': ((16, 1, 4), (1, 1, 1, 1)),
    'v6e-8': ((4, 1, 2), (8, 2, 2, 1)),
    'v6e-16': ((8, 1, 2), (2, 1, 1, 1)),
    'v6e-32': ((16, 1, 2), (1, 1, 1, 1)),
    'v6e-64': ((32, 1, 2), (1, 1, 1, 1)),
    'v6e-128': ((32, 1, 4), (1, 1, 1, 1)),
    'v6e-256': ((64, 1, 4), (1, 1, 1, 1)),
    'h100:1': ((1, 1, 1), (64, 16, 32, 8)),
    'h100:2': ((1, 1, 2), (16, 4, 4, 1)),
    'h100:4': ((4, 1, 1), (4, 1, 2, 1)),
    'h100:8': ((8, 1, 1), (2, 1, 1, 1)),
    'h100:16': ((16, 1, 1), (1, 1, 1, 1)),
    'h100:32': ((16, 1, 2), (1, 1, 1, 1)),
    'h100:64': ((32, 1, 2), (1, 1, 1, 1)),
    'a100:8': ((8, 1, 1), (2, 1, 1, 1)),
    'l4:8': ((2, 1, 4), (16, 4, 8, 2)),
}


def get_config() -> ConfigDict:
    """7.1B frozen, 1.8B trained."""
    c = training.paper('9b')
    c.mesh = ConfigDict(dict(data=1, fsdp=-1, tensor=1))
    for name, (mesh, numbers) in MACHINES.items():
        parts = dict(zip(('m3w', 'align', 'ltip', 'vtp'), numbers, strict=True))
        c.machines[name] = training.machine(*mesh, micro_batches=parts, remat='dots')
    c.machines['h100:1'].remat = 'full'  # `dots` takes 70 of its 80 GB.
    return c
