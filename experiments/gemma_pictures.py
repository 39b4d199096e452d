"""A Flamingo on Gemma 3 270M, which read 140 languages: it names pictures in the language of the examples.

    data/language_models/fetch.sh LMS gemma3
    ARTISTS=DATA/picture_dictionary/artists/1.0.0 CLASSES=DATA/imagenet_names/full/1.0.0
    python -m flamingo_jax.train --config=experiments/gemma_pictures.py:contrast --workdir=runs/gemma_contrast \
        --config.lm=LMS/gemma3 --config.datasets.names.path=$ARTISTS --config.datasets.known.path=$ARTISTS \
        --config.datasets.classes.path=$CLASSES
    python -m flamingo_jax.convert run --source=runs/gemma_contrast --out=runs/gemma_resampler
    python -m flamingo_jax.train --config=experiments/gemma_pictures.py:meanings --workdir=runs/gemma_meanings \
        --config.lm=LMS/gemma3 --config.datasets.names.path=$ARTISTS --config.datasets.known.path=$ARTISTS
    python -m flamingo_jax.convert run --source=runs/gemma_meanings --out=runs/gemma_meanings_bundle
    python -m flamingo_jax.train --config=experiments/gemma_pictures.py --workdir=runs/gemma_pictures \
        --config.datasets.names.path=$ARTISTS
    python -m flamingo_jax.evaluate --config=experiments/evaluate/gemma_pictures.py --checkpoint=runs/gemma_pictures \
        --workdir=DIR --config.data=$ARTISTS --config.features=runs/artists

The pictures, their features and the first two stages are those of `experiments/smollm_pictures.py`, whose docstring has
the commands that make them. Then the names are said in 30 languages. Of the languages in `UNSEEN`, training shows no
name of any picture: what is said in them is what Gemma knows.
"""

from ml_collections import ConfigDict

from experiments import smollm_pictures
from experiments.picture_dictionary import LANGUAGES
from experiments.smollm_pictures import DRAWINGS
from flamingo_jax.few_shot.names import Names
from flamingo_jax.few_shot.source import FewShot, game
from flamingo_jax.training import config as training

UNSEEN = ('hu', 'nl', 'pt', 'sv', 'uk', 'zh')
SEEN = tuple(language for language in LANGUAGES if language not in ('en', *UNSEEN))


def get_config(stage: str = '') -> ConfigDict:
    """The stages are 'contrast', which makes the resampler, 'meanings', which makes the bridge, and ''."""
    c = smollm_pictures.get_config(stage)
    if stage:
        c.lm = 'LMS/gemma3'
        if stage == 'meanings':
            c.resampler = 'runs/gemma_resampler'
            c.model.xattn.first, c.model.xattn.every = 0, 3  # As it was run: docs/results.md has its figures.
    else:
        c.start = 'runs/gemma_meanings_bundle'
        games = dict(name=game(Names, languages=('en',) * len(SEEN) + SEEN))  # English as often as all together.
        row = dict(shots=6, games=games, length=64, targets=64, images=6)
        c.datasets = ConfigDict(dict(names=training.dataset(FewShot, batch_size=8, **row, **DRAWINGS)))
        c.steps = 480
    return c
