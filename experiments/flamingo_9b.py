"""Flamingo-9B by the paper's recipe. Nobody has run it with this code. `plan` says what it needs:

    python -m flamingo_jax.plan --config=experiments/flamingo_9b.py --topology=v5e-64

It needs bundles/lm, bundles/nfnet_f6 and the four data sets. The docstring of experiments/flamingo_3b.py has the
commands that make them, and that train on the machine that was planned for.
"""

from ml_collections import ConfigDict

from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """7.1B frozen, 1.8B trained."""
    c = training.paper('9b')
    c.mesh = ConfigDict(dict(data=1, fsdp=-1, tensor=1))
    # By `plan --search` (docs/scaling.md).
    c.machines['v4:4x4x4'] = training.machine(data=16, fsdp=1, tensor=4, remat='dots')
    c.machines['v5p:4x4x4'] = training.machine(data=16, fsdp=1, tensor=4, remat='dots')
    c.machines['v6e-64'] = training.machine(data=32, fsdp=1, tensor=2, remat='dots')
    numbers = dict(m3w=4, align=1, ltip=2, vtp=1)
    c.machines['v5e-64'] = training.machine(data=16, fsdp=1, tensor=4, micro_batches=numbers, remat='dots')
    numbers = dict(m3w=2, align=1, ltip=1, vtp=1)
    c.machines['h100:8'] = training.machine(data=8, fsdp=1, tensor=1, micro_batches=numbers, remat='dots')
    return c
