"""Contrastive pretraining, small: drawings by 27 artists and their English names, from EfficientNet-Lite0.

    python -m flamingo_jax.train --config=research/experiments/contrastive_pictures.py --workdir=runs/contrastive \
        --config.datasets.images.path=DATA/picture_dictionary/artists/1.0.0
    python -m flamingo_jax.convert run --source=runs/contrastive --out=runs/contrastive_bundle

Data are those of experiments/smollm_pictures.py. Twitter's drawings are left out, to measure on.
It takes 8 minutes of one core. Twitter's drawing of a thing is then the nearest to Google's for .489 of the things at
96 pixels, where the frozen trunk has .443 (research/contrastive_trunk.md).
"""

from ml_collections import ConfigDict

from experiments.smollm_pictures import ARTISTS
from flamingo_jax.model.config import TINY, ContrastiveConfig
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.training import config as training
from flamingo_jax.training.objectives.contrastive import Paired

STYLES = tuple(style for style in ARTISTS if style != 'twemoji')


def get_config() -> ConfigDict:
    """The trunk, and a text tower of two blocks from random weights."""
    c = training.base()
    c.steps, c.checkpoint_every = 400, 50
    c.vision, c.tokenizer = 'runs/trunk', 'experiments/lm_dictionary/tokenizer.model'
    c.model.lm = ConfigDict(vars(TINY['lm']) | dict(depth=2, context=16))
    c.model.contrastive = ConfigDict(vars(ContrastiveConfig(width=256)))
    c.trained = ('vision', 'lm', 'contrastive')
    c.datasets.images = training.dataset(
        FewShot,
        row=Paired,
        shots=1,
        games=dict(name=game(Names)),
        styles=STYLES,
        views=1000,
        length=12,
        images=1,
        batch_size=64,
    )
    c.optimizer.update(learning_rate=3e-4, warmup_steps=20, decay='linear', final_fraction=0.0, weight_decay=0.05)
    c.optimizer.clip = 10.0
    c.optimizer.tree_factors.update(lm=4.0, contrastive=4.0)  # What is new learns faster than the trunk.
    return c
