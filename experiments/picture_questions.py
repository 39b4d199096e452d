"""Questions about a picture and about one of two: goes on from the model of experiments/picture_dictionary.py.

    python -m flamingo_jax.convert run --source=runs/picture_dictionary --out=runs/picture_dictionary_bundle
    python -m flamingo_jax.train --config=experiments/picture_questions.py --workdir=runs/picture_questions \
        --config.datasets.pictures.path=DATA/picture_dictionary/full/1.0.0
"""

from ml_collections import ConfigDict

from experiments import picture_dictionary
from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """Mostly questions; some of the rest, so that it is not forgotten."""
    before = picture_dictionary.get_config()
    c = training.base()
    c.start = 'runs/picture_dictionary_bundle'
    c.steps, c.checkpoint_every = 600, 150
    c.datasets.pictures = before.datasets.pictures
    c.datasets.pictures.few_shot.mixture = ConfigDict(dict(bind=0.1, name=0.1, kind=0.1, yes_or_no=0.3, which=0.4))
    c.optimizer, c.noise = before.optimizer, before.noise
    return c
