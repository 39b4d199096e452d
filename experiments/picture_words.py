"""New words for images, their English names and kinds, over the whole picture dictionary, from frozen features.

    data/picture_dictionary/fetch.sh RAW
    python -m data.picture_dictionary.build --raw=RAW --out=DATA --config=full
    python -m flamingo_jax.convert efficientnet --image_size=160 --out=runs/trunk \
        --standardise=DATA/picture_dictionary/full/1.0.0 --styles=noto,twemoji,openmoji-color,fluent-flat
    python -m flamingo_jax.features --data=DATA/picture_dictionary/full/1.0.0 --vision=runs/trunk --out=runs/features \
        --splits=train --views=4
    python -m flamingo_jax.features --data=DATA/picture_dictionary/full/1.0.0 --vision=runs/trunk --out=runs/features \
        --splits=validation,test
    python -m flamingo_jax.train --config=experiments/picture_words.py --workdir=runs/picture_words \
        --config.datasets.images.path=DATA/picture_dictionary/full/1.0.0

experiments/lm_pictures.py makes the language model. experiments/picture_dictionary.py starts from the result.
"""

from ml_collections import ConfigDict

from experiments import quickstart
from flamingo_jax.tasks.kinds import Kinds
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.tasks.words import Words
from flamingo_jax.training import config as training

STYLES = ('noto', 'twemoji', 'openmoji-color', 'fluent-flat')  # Whose images may be passed on.
# The word for what kind of thing an image shows, by how its subcategory begins. Those of `tux-` are the stamps'.
KINDS = {
    **dict.fromkeys(
        ('icon-animal', 'animal', 'tux-birds', 'tux-bovines', 'tux-mammals', 'tux-insects', 'tux-fish'), 'animal'
    ),
    **dict.fromkeys(
        ('tux-cats', 'tux-rodents', 'tux-deer', 'tux-dogs', 'tux-marsupials', 'tux-apes', 'tux-equines'), 'animal'
    ),
    **dict.fromkeys(('icon-plant', 'plant', 'tux-flowers', 'tux-plants', 'tux-trees'), 'plant'),
    **dict.fromkeys(
        ('icon-food', 'food', 'tux-fruit', 'tux-vegetables', 'tux-nuts', 'tux-food', 'tux-dessert'), 'food'
    ),
    **dict.fromkeys(('transport', 'tux-vehicles', 'tux-auto', 'tux-ship', 'tux-planes', 'tux-emergency'), 'vehicle'),
    **dict.fromkeys(('place-building', 'place-religious'), 'building'),
    **dict.fromkeys(('clothing', 'tux-clothes', 'tux-hats'), 'garment'),
    **dict.fromkeys(('tool', 'tux-tools'), 'tool'),
    **dict.fromkeys(('musical-instrument', 'tux-string', 'tux-percussion', 'tux-brass'), 'instrument'),
}


def get_config() -> ConfigDict:
    """The quickstart's recipe, longer and with kinds."""
    c = quickstart.get_config()
    c.steps, c.checkpoint_every = 1500, 150
    c.lm, c.vision = 'runs/lm_pictures_bundle', 'runs/trunk'
    c.model.resampler.update(width=192, head_dim=48)  # As wide as the language model: a bundle has less than 10 MB.
    games = dict(bind=game(Words, share=0.55), name=game(Names, share=0.3), kind=game(Kinds, share=0.15, kinds=KINDS))
    c.datasets = ConfigDict()
    c.datasets.images = training.dataset(
        FewShot, shots=8, games=games, features='runs/features', styles=STYLES, length=56, images=8, batch_size=32
    )
    return c
