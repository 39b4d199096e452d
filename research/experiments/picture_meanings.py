"""Aligns a new bridge: an image is to mean, to the frozen language model, what its English name means.

    python -m flamingo_jax.train --config=research/experiments/picture_meanings.py --workdir=runs/picture_meanings \
        --config.datasets.images.path=DATA/picture_dictionary/full/1.0.0
    python -m flamingo_jax.convert run --source=runs/picture_meanings --out=runs/picture_meanings_bundle

The result cannot answer yet. A run that starts from it has open gates before every block, and a language model that
translates what it sees. A bridge that is trained on answers alone shows the image to the last block only, as the
English word to be written.

Data, trunk and features are those of experiments/picture_words.py. The language model is that of
experiments/lm_names.py. One with a third of its steps is in the repository (--config.lm=experiments/lm_names).
"""

from ml_collections import ConfigDict

from experiments import picture_words
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.training import config as training
from flamingo_jax.training.objectives.aligned import Aligned


def get_config() -> ConfigDict:
    """The model of picture_words with its gates open, one image and one name a row."""
    c = picture_words.get_config()
    c.steps, c.checkpoint_every = 1000, 200
    c.lm = 'runs/lm_names_bundle'
    c.model.xattn.initial_alpha = 1.0
    c.datasets.images = training.dataset(
        FewShot,
        shots=1,
        games=dict(name=game(Names)),
        features='runs/features',
        styles=picture_words.STYLES,
        length=12,
        images=1,
        batch_size=256,
        row=Aligned,
    )
    c.optimizer.update(learning_rate=2e-3, warmup_steps=30, final_fraction=0.05)
    return c
