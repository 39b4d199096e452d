"""The tasks of experiments/picture_dictionary.py, from the aligned bridge of research/experiments/picture_meanings.py.

    python -m flamingo_jax.train --config=research/experiments/picture_languages.py --workdir=runs/picture_languages \
        --config.datasets.images.path=DATA/picture_dictionary/full/1.0.0

The result names images in 36 languages. It binds new words less well than the model in
experiments/picture_dictionary/, whose bridge was not aligned (research/small_model.md, "An image that means its name").
"""

from ml_collections import ConfigDict

from experiments import picture_dictionary


def get_config() -> ConfigDict:
    """The tasks and languages of picture_dictionary."""
    c = picture_dictionary.get_config()
    c.start = 'runs/picture_meanings_bundle'
    c.steps, c.checkpoint_every = 1500, 150
    return c
