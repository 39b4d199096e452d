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

# What can be rented: ((data, fsdp, tensor), micro-batches of m3w, align, ltip and vtp), by `plan --search`
# (docs/scaling.md). v5p-N is named by cores, as the cloud does: it has N / 2 chips.
MACHINES = {
    'v4:2x2x4': ((16, 1, 1), (1, 1, 1, 1)),
    'v5e-8': ((2, 1, 4), (16, 4, 4, 2)),
    'v5e-16': ((8, 1, 2), (8, 2, 4, 1)),
    'v5e-32': ((16, 1, 2), (4, 1, 2, 1)),
    'v5e-64': ((32, 1, 2), (1, 1, 1, 1)),
    'v5e-128': ((64, 1, 2), (1, 1, 1, 1)),
    'v5e-256': ((64, 1, 4), (1, 1, 1, 1)),
    'v5p-8': ((4, 1, 1), (1, 1, 1, 1)),
    'v5p-16': ((8, 1, 1), (1, 1, 1, 1)),
    'v5p-32': ((16, 1, 1), (1, 1, 1, 1)),
    'v5p-64': ((32, 1, 1), (1, 1, 1, 1)),
    'v5p-128': ((64, 1, 1), (1, 1, 1, 1)),
    'v6e-8': ((8, 1, 1), (2, 1, 1, 1)),
    'v6e-16': ((16, 1, 1), (1, 1, 1, 1)),
    'v6e-32': ((32, 1, 1), (1, 1, 1, 1)),
    'v6e-64': ((32, 1, 2), (1, 1, 1, 1)),
    'v6e-128': ((64, 1, 2), (1, 1, 1, 1)),
    'v6e-256': ((64, 1, 4), (1, 1, 1, 1)),
    'h100:1': ((1, 1, 1), (16, 4, 4, 1)),
    'h100:2': ((2, 1, 1), (8, 2, 2, 1)),
    'h100:4': ((4, 1, 1), (2, 1, 1, 1)),
    'h100:8': ((8, 1, 1), (1, 1, 1, 1)),
    'h100:16': ((16, 1, 1), (1, 1, 1, 1)),
    'h100:32': ((16, 1, 2), (1, 1, 1, 1)),
    'h100:64': ((32, 1, 2), (1, 1, 1, 1)),
    'a100:8': ((8, 1, 1), (1, 1, 1, 1)),
    'l4:8': ((4, 1, 2), (8, 2, 4, 1)),
}


def get_config() -> ConfigDict:
    """1.4B frozen, 1.4B trained."""
    c = training.paper('3b')
    c.mesh = ConfigDict(dict(data=1, fsdp=-1, tensor=1))
    for name, (mesh, numbers) in MACHINES.items():
        parts = dict(zip(('m3w', 'align', 'ltip', 'vtp'), numbers, strict=True))
        c.machines[name] = training.machine(*mesh, micro_batches=parts, remat='dots')
    return c
