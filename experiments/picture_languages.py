"""Goes on from the model of experiments/picture_dictionary.py with the language model of experiments/lm_names.py.

    python -m flamingo_jax.convert run --source=runs/picture_dictionary --out=runs/picture_dictionary_bundle
    python -m flamingo_jax.train --config=experiments/picture_languages.py --workdir=runs/picture_languages \
        --config.datasets.pictures.path=DATA/picture_dictionary/full/1.0.0

The new language model is the old one, trained further on names in 36 languages; the bridge gets used to it. The model in
experiments/picture_dictionary/ is from before.
"""

from ml_collections import ConfigDict

from experiments import picture_dictionary


def get_config() -> ConfigDict:
    """The tasks and languages of picture_dictionary."""
    c = picture_dictionary.get_config()
    c.start, c.lm = 'runs/picture_dictionary_bundle', 'runs/lm_names_bundle'
    c.steps = 1000
    return c
