"""What experiments/picture_dictionary.py learns, from a bridge that experiments/picture_meanings.py began.

    python -m flamingo_jax.train --config=experiments/picture_languages.py --workdir=runs/picture_languages \
        --config.datasets.pictures.path=DATA/picture_dictionary/full/1.0.0

The model in experiments/picture_dictionary/ is the other, which began with answers.
"""

from ml_collections import ConfigDict

from experiments import picture_dictionary


def get_config() -> ConfigDict:
    """The tasks and languages of picture_dictionary."""
    c = picture_dictionary.get_config()
    c.start = 'runs/picture_meanings_bundle'
    c.steps, c.checkpoint_every = 1500, 150
    c.datasets.pictures.few_shot.blend = 0.9  # It knows each thing by its name: things without one teach it to look.
    return c
