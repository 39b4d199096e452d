"""Words and names over the whole picture dictionary: four styles in training, 36 languages, frozen features.

    data/picture_dictionary/fetch.sh RAW
    python -m data.picture_dictionary.build --raw=RAW --out=DATA --config=full
    python -m flamingo_jax.convert efficientnet --image_size=160 --out=runs/trunk \
        --standardise=DATA/picture_dictionary/full/1.0.0
    python -m flamingo_jax.features --data=DATA/picture_dictionary/full/1.0.0 --vision=runs/trunk --out=runs/features
    python -m flamingo_jax.train --config=experiments/picture_dictionary.py --workdir=runs/picture_dictionary \
        --config.vision=runs/trunk --config.datasets.names.features=runs/features \
        --config.datasets.names.path=DATA/picture_dictionary/full/1.0.0

Build the data set without the clips (fetch.sh without --animations): features have one number of frames.
"""

from ml_collections import ConfigDict

from experiments import quickstart

STYLES = ('noto', 'twemoji', 'openmoji-color', 'fluent-flat', 'tux-drawing')
LANGUAGES = ('en', 'de', 'fr', 'es', 'it', 'ru', 'ja', 'ko')  # Those that the frozen language model knows.


def get_config() -> ConfigDict:
    """The quickstart's mixture, of invented words and true names in one language a sequence, over all pictures."""
    c = quickstart.get_config()
    c.steps = 1500
    c.datasets.names.update(
        path='',
        features='',
        styles=STYLES,
        length=80,
        few_shot=dict(languages=LANGUAGES),
    )
    c.checkpoint_every = 500
    return c
