"""New words, names in 36 languages, kinds and questions over the whole picture dictionary, from frozen features.

    data/picture_dictionary/fetch.sh RAW
    python -m data.picture_dictionary.build --raw=RAW --out=DATA --config=full
    python -m flamingo_jax.convert efficientnet --image_size=160 --out=runs/trunk \
        --standardise=DATA/picture_dictionary/full/1.0.0
    python -m flamingo_jax.features --data=DATA/picture_dictionary/full/1.0.0 --vision=runs/trunk --out=runs/features \
        --splits=train --views=4
    python -m flamingo_jax.features --data=DATA/picture_dictionary/full/1.0.0 --vision=runs/trunk --out=runs/features \
        --splits=validation,test
    python -m flamingo_jax.train --config=experiments/picture_dictionary.py:begin --workdir=runs/picture_dictionary \
        --config.datasets.pictures.path=DATA/picture_dictionary/full/1.0.0
    python -m flamingo_jax.train --config=experiments/picture_dictionary.py --workdir=runs/picture_dictionary \
        --config.datasets.pictures.path=DATA/picture_dictionary/full/1.0.0

The first 450 steps see few tasks, and names in English alone. Where all tasks and languages come at once, the pictures tell too
little of the next word at first: the gates close (0.46 to 0.04 in 430 steps), and the run stays at guessing among the
words of the prompt.

The language model is made by experiments/lm_pictures.py.
"""

import dataclasses

from ml_collections import ConfigDict

from experiments import quickstart
from flamingo_jax.inputs.few_shot import FewShotConfig
from flamingo_jax.training import config as training

STYLES = ('noto', 'twemoji', 'openmoji-color', 'fluent-flat', 'tux-drawing')
LANGUAGES = tuple(
    'en de fr es it ru ja ko am bg ca cs el eu fi ga gd gl gu hr hu hy id is ka lv nb nl pl pt sk sl sq sv uk zh'.split()
)
# The word for what kind of thing a picture shows, by how its subcategory begins. Those of `tux-` are the stamps'.
KINDS = {
    **dict.fromkeys(
        ('animal', 'tux-birds', 'tux-bovines', 'tux-mammals', 'tux-insects', 'tux-fish', 'tux-cats'), 'animal'
    ),
    **dict.fromkeys(('tux-rodents', 'tux-deer', 'tux-dogs', 'tux-marsupials', 'tux-apes', 'tux-equines'), 'animal'),
    **dict.fromkeys(('plant', 'tux-flowers', 'tux-plants', 'tux-trees'), 'plant'),
    **dict.fromkeys(('food', 'tux-fruit', 'tux-vegetables', 'tux-nuts', 'tux-food', 'tux-dessert'), 'food'),
    **dict.fromkeys(('transport', 'tux-vehicles', 'tux-auto', 'tux-ship', 'tux-planes', 'tux-emergency'), 'vehicle'),
    **dict.fromkeys(('place-building', 'place-religious'), 'building'),
    **dict.fromkeys(('clothing', 'tux-clothes', 'tux-hats'), 'garment'),
    **dict.fromkeys(('tool', 'tux-tools'), 'tool'),
    **dict.fromkeys(('musical-instrument', 'tux-string', 'tux-percussion', 'tux-brass'), 'instrument'),
}


def get_config(stage: str = '') -> ConfigDict:
    """The quickstart's recipe, of all that one picture, or two, may be asked; stage 'begin' is the easier half of it."""
    c = quickstart.get_config()
    c.steps = 1200
    c.lm, c.vision = 'runs/lm_pictures_bundle', 'runs/trunk'
    few_shot = FewShotConfig(
        shots=8,
        mixture=dict(bind=0.4, name=0.3, kind=0.06, yes_or_no=0.08, which=0.16),
        languages=LANGUAGES,
        repeats=0.5,
        kinds=KINDS,
    )
    if stage == 'begin':
        few_shot = dataclasses.replace(
            few_shot, mixture=dict(bind=0.4, name=0.45, kind=0.15), languages=('en',), repeats=0.0
        )
        c.steps, c.optimizer.final_fraction = 450, 1.0
    elif stage:
        raise ValueError(f"The stages are '' and 'begin', and not {stage!r}.")
    c.datasets = ConfigDict()
    c.datasets.pictures = training.dataset(
        few_shot, features='runs/features', styles=STYLES, length=88, images=8, batch_size=32
    )
    c.checkpoint_every = 150
    return c
