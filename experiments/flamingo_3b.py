"""Flamingo-3B by the paper's recipe. Nobody has run it with this code. `plan` says what it needs:

    python -m flamingo_jax.plan --config=experiments/flamingo_3b.py --topology=v5e-16

It needs a language model, a trunk and four data sets. The paper's own are not public. Any language model and any trunk
that `convert` reads will do; the widths follow theirs:

    python -m flamingo_jax.convert lm --source=LM --out=bundles/lm
    python -m flamingo_jax.convert nfnet --source=dm_nfnet_f6.safetensors --out=bundles/nfnet_f6    (or clip, siglip)

The images have 320 pixels, for an NFNet-F6. With another trunk, `--config.image_size=0` takes the size of its own.

These commands build data sets of the paper's kinds (data/README.md names the sets):

    python -m data.web_pages.build --warc="CRAWL/*.warc.gz" --out=DATA        (or data.mmc4.build, data.obelics.build)
    python -m data.pairs.build --source="PAIRS/*.tar" --out=DATA --name=align
    python -m data.pairs.build --source="OTHER_PAIRS/*.tar" --out=DATA --name=ltip
    python -m data.films.build --source="VIDEOS/*.tar" --out=DATA --name=vtp

Then, on the machine that was planned for (`config.machines` below), with `--coordinator=auto` if it has several hosts:

    python -m flamingo_jax.train --config=experiments/flamingo_3b.py --workdir=DIR --config.machine=v5e-16

Where they lie elsewhere, `--config.lm`, `--config.vision` and `--config.datasets.NAME.path` say so. Pages of MMC4 are
at DATA/mmc4/all/1.0.0: `--config.datasets.m3w.path=DATA/mmc4/all/1.0.0`.
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
