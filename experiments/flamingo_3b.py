"""Flamingo-3B by the paper's recipe. Nobody has run it with this code. `plan` says what it needs:

    python -m flamingo_jax.plan --config=experiments/flamingo_3b.py --topology=v5e-16

It needs bundles/lm (Chinchilla-1.4B's shape), bundles/nfnet_f6, and four data sets. The paper's own are not public;
these commands build sets of their kinds from what is (data/README.md names the sets):

    python -m data.web_pages.build --warc="CRAWL/*.warc.gz" --out=DATA
    python -m data.pairs.build --source="PAIRS/*.tar" --out=DATA --name=align
    python -m data.pairs.build --source="OTHER_PAIRS/*.tar" --out=DATA --name=ltip
    python -m data.films.build --source="FILMS/*.tar" --out=DATA --name=vtp
"""

from ml_collections import ConfigDict

from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """1.4B frozen, 1.4B trained."""
    c = training.paper('3b')
    c.mesh = ConfigDict(dict(data=1, fsdp=-1, tensor=1))
    # By `plan --search` (docs/scaling.md).
    c.machines['v4:2x2x4'] = training.machine(data=16, fsdp=1, tensor=1, remat='dots')
    numbers = dict(m3w=8, align=2, ltip=4, vtp=1)
    c.machines['v5e-16'] = training.machine(data=8, fsdp=1, tensor=2, micro_batches=numbers, remat='dots')
    c.machines['v5p:2x2x4'] = training.machine(data=16, fsdp=1, tensor=1, remat='dots')
    c.machines['v6e-16'] = training.machine(data=16, fsdp=1, tensor=1, remat='dots')
    numbers = dict(m3w=16, align=4, ltip=4, vtp=1)
    c.machines['h100:1'] = training.machine(data=1, fsdp=1, tensor=1, micro_batches=numbers, remat='dots')
    return c
