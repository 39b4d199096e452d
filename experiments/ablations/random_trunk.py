"""A frozen trunk of random weights, which shows what pretraining gives.

    python -m flamingo_jax.convert efficientnet --random_seed=0 --image_size=160 --out=runs/random_trunk \
        --standardise=DATA/picture_dictionary/full/1.0.0 --styles=noto,twemoji,openmoji-color,fluent-flat
    python -m flamingo_jax.features --data=DATA/picture_dictionary/full/1.0.0 --vision=runs/random_trunk \
        --out=runs/random_features --splits=train --views=4
    python -m flamingo_jax.features --data=DATA/picture_dictionary/full/1.0.0 --vision=runs/random_trunk \
        --out=runs/random_features --splits=validation,test

The paper has no such row. It trains its trunk of random weights with the rest (table 10 row v: 61.4, 9.3 below its
base).
"""

from ml_collections import ConfigDict

from experiments.ablations import base


def get_config() -> ConfigDict:
    """Features of a trunk that has never seen a picture."""
    c = base.get_config()
    c.vision = 'runs/random_trunk'
    for data in c.datasets.values():
        data.features = 'runs/random_features'
    return c
