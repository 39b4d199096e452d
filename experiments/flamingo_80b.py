"""Flamingo-80B by the paper's recipe. Nobody has run it with this code. `plan` says what it needs:

    python -m flamingo_jax.plan --config=experiments/flamingo_80b.py --topology=v4:8x12x16

The paper trained it on 1,536 TPU v4 chips for 15 days (16-way tensor parallel, ZeRO stage 1), which is that topology.
It needs bundles/lm (Chinchilla-70B's shape), bundles/nfnet_f6, and the four data sets of
experiments/flamingo_3b.py, whose docstring has the commands that build them.
"""

from ml_collections import ConfigDict

from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """70B frozen, 9.9B trained."""
    c = training.paper('80b')
    c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=16))
    # By `plan --search` (docs/scaling.md). Batches are 1.5 times the ablations' on the paper's machine: the smallest
    # multiple that its 96 copies divide.
    c.machines['v4:8x12x16'] = training.machine(data=96, fsdp=1, tensor=16, batch=1.5, remat='dots')
    c.machines['v5p:8x8x16'] = training.machine(data=64, fsdp=1, tensor=16, remat='dots')
    numbers = dict(m3w=4, align=1, ltip=1, vtp=1)
    c.machines['v5e-256'] = training.machine(data=1, fsdp=16, tensor=16, micro_batches=numbers, remat='dots')
    c.machines['v6e-256'] = training.machine(data=16, fsdp=1, tensor=16, micro_batches=numbers, remat='dots')
    return c
