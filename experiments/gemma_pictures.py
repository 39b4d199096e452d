"""A Flamingo on Gemma 3 270M, which read 140 languages: it names pictures in the language of the examples.

    data/language_models/fetch.sh LMS gemma3
    ARTISTS=DATA/picture_dictionary/artists/1.0.0 CLASSES=DATA/imagenet_names/full/1.1.0
    python -m flamingo_jax.train --config=experiments/gemma_pictures.py:contrast --workdir=runs/gemma_contrast \
        --config.lm=LMS/gemma3 --config.datasets.names.path=$ARTISTS --config.datasets.known.path=$ARTISTS \
        --config.datasets.classes.path=$CLASSES
    python -m flamingo_jax.convert run --source=runs/gemma_contrast --out=runs/gemma_resampler
    python -m flamingo_jax.train --config=experiments/gemma_pictures.py --workdir=runs/gemma_pictures \
        --config.lm=LMS/gemma3 --config.datasets.single.path=$ARTISTS --config.datasets.names.path=$ARTISTS
    python -m flamingo_jax.convert run --source=runs/gemma_pictures --out=runs/gemma_pictures_bundle --without_lm
    python -m flamingo_jax.train --config=experiments/gemma_pictures.py:copy --workdir=runs/gemma_copy \
        --config.lm=LMS/gemma3 --config.datasets.single.path=$ARTISTS --config.datasets.names.path=$ARTISTS \
        --config.datasets.words.path=$ARTISTS
    python -m flamingo_jax.evaluate --config=experiments/evaluate/gemma_pictures.py --checkpoint=runs/gemma_copy \
        --workdir=DIR --config.data=$ARTISTS --config.features=runs/artists

The pictures, their features and the first stage are those of `experiments/smollm_pictures.py`, whose docstring has the
commands that make them. Then the names of drawings are said in 29 languages, and in English. Last (`copy`), things come
several times in a sequence, so that a name can be taken from an example. In the languages of `UNSEEN`
(`smollm_pictures.py`), training names no picture: what is said in them is what Gemma knows, or what the examples tell.
"""

from ml_collections import ConfigDict

from experiments import smollm_pictures
from experiments.smollm_pictures import DRAWINGS, KNOWN, NAMED, SEEN
from flamingo_jax.few_shot.names import Names
from flamingo_jax.few_shot.source import FewShot, game
from flamingo_jax.few_shot.words import Words
from flamingo_jax.training import config as training

ENGLISH = NAMED | dict(targets=40, window=(12, 1))


def get_config(stage: str = '') -> ConfigDict:
    """A stage, or ValueError. 'contrast' makes the resampler, '' the bridge, and 'copy' goes on with it."""
    stages = {'contrast': smollm_pictures.contrast, '': bridge, 'copy': copy}
    if stage not in stages:
        raise ValueError(f'The stages are {sorted(stages)}, and not {stage!r}.')
    c = smollm_pictures.base()
    stages[stage](c)
    c.lm = 'LMS/gemma3'
    return c


def bridge(c: ConfigDict) -> None:
    """New gated blocks learn names in English and in 29 languages."""
    smollm_pictures.new_bridge(c)
    c.resampler = 'runs/gemma_resampler'
    # Without Gemma's own norms the blocks are hardly heard (docs/results.md). Text without pictures is Gemma's own.
    c.model.xattn.update(first=3, every=4, gates=False, norms_of_lm=True)
    c.datasets.single = training.dataset(FewShot, batch_size=3, **ENGLISH, **KNOWN)
    names = dict(shots=6, games=dict(name=game(Names, languages=SEEN)), length=64, targets=44, images=6)
    c.datasets.names = training.dataset(FewShot, batch_size=8, **names, **KNOWN)
    c.steps, c.optimizer.learning_rate = 500, 1e-3


def copy(c: ConfigDict) -> None:
    """The bridge learns to take a name from the examples, in whatever language it is: things come several times."""
    smollm_pictures.without_noise(c)
    c.start = 'runs/gemma_pictures_bundle'
    c.datasets.single = training.dataset(FewShot, batch_size=2, **ENGLISH, **KNOWN)
    row = dict(length=72, targets=48)
    names = dict(name=game(Names, prompt=':', languages=SEEN, repeats=0.8))
    c.datasets.names = training.dataset(FewShot, batch_size=6, shots=6, games=names, images=6, **row, **KNOWN)
    words = dict(bind=game(Words, prompt=':', blend=1.0, real_words=0.3, classes=(2, 5)))
    c.datasets.words = training.dataset(FewShot, batch_size=4, shots=8, games=words, images=8, **row, **DRAWINGS)
    c.steps, c.optimizer.learning_rate = 400, 8e-4
