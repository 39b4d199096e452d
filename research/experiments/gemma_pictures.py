"""A Flamingo on Gemma 3 270M, which read 140 languages: it names images in the language of the examples.

    data/language_models/fetch.sh LMS gemma3
    ARTISTS=DATA/picture_dictionary/artists/1.0.0 CLASSES=DATA/imagenet_names/full/1.1.0
    python -m flamingo_jax.train --config=research/experiments/gemma_pictures.py:contrast --config.lm=LMS/gemma3 \
        --workdir=runs/gemma_contrast --config.datasets.names.path=$ARTISTS --config.datasets.known.path=$ARTISTS \
        --config.datasets.classes.path=$CLASSES
    python -m flamingo_jax.convert run --source=runs/gemma_contrast --out=runs/gemma_resampler
    python -m flamingo_jax.train --config=research/experiments/gemma_pictures.py --workdir=runs/gemma_pictures \
        --config.lm=LMS/gemma3 --config.datasets.single.path=$ARTISTS --config.datasets.names.path=$ARTISTS \
        --config.datasets.words.path=$ARTISTS
    python -m flamingo_jax.convert run --source=runs/gemma_pictures --out=runs/gemma_names --without_lm
    python -m flamingo_jax.train --config=research/experiments/gemma_pictures.py:further --workdir=runs/gemma_further \
        --config.lm=LMS/gemma3 --config.start=runs/gemma_names --config.datasets.single.path=$ARTISTS \
        --config.datasets.names.path=$ARTISTS --config.datasets.words.path=$ARTISTS
    python -m flamingo_jax.convert run --source=runs/gemma_further --out=runs/gemma_more --without_lm
    python -m flamingo_jax.convert mean --source=runs/gemma_names,runs/gemma_more --weights=.5,.5 --lm=LMS/gemma3 \
        --out=runs/gemma_mean
    python -m flamingo_jax.evaluate --config=research/experiments/evaluate/gemma_pictures.py --workdir=DIR \
        --checkpoint=runs/gemma_mean --lm=LMS/gemma3 --config.data=$ARTISTS --config.features=runs/artists

The images, their features and the first stage are those of `experiments/smollm_pictures.py`, whose docstring has the
commands that make them. Then the gated blocks learn names in English, and to take a name in one of 29 other languages
from an example. `:further` has more English names; the mean of the weights before and after it keeps both. In the
languages of `UNSEEN` (`smollm_pictures.py`), training names no image: what is said in them is what Gemma knows, or
what the examples tell.
"""

from ml_collections import ConfigDict

from experiments import smollm_pictures
from experiments.smollm_pictures import BY_ALL, COPIED, DRAWINGS, NAMED
from flamingo_jax import commands
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.tasks.words import Words
from flamingo_jax.training import config as training


def get_config(stage: str = '') -> ConfigDict:
    """A stage, or ValueError. 'contrast' makes the resampler, '' the bridge; 'further' goes on with it."""
    stages = {'contrast': smollm_pictures.contrast, '': bridge, 'further': further}
    c = smollm_pictures.base()
    commands.part(stages, stage)(c)
    c.lm = 'LMS/gemma3'
    return c


def bridge(c: ConfigDict) -> None:
    """New gated blocks learn English names, and to take names from examples in 29 other languages."""
    smollm_pictures.new_bridge(c)
    c.resampler = 'runs/gemma_resampler'
    # Without Gemma's own norms the blocks are hardly heard (research/gemma.md). Text without images is Gemma's own.
    c.model.xattn.update(first=3, every=4, gates=False, norms_of_lm=True)
    games(c, single=2, words=2)
    c.noise.feature_dropout = 0.0
    c.steps, c.optimizer.learning_rate = 520, 1e-3


def further(c: ConfigDict) -> None:
    """The bridge goes on, with more English names and fewer new words, which are learned by then."""
    smollm_pictures.go_on_from(c, 'runs/gemma_names')
    games(c, single=4, words=1)
    c.noise.feature_dropout = 0.0
    c.steps, c.optimizer.learning_rate = 300, 1e-3


def games(c: ConfigDict, single: int, words: int) -> None:
    """Rows of single images and of new words, beside five rows of names in other languages."""
    # Gemma writes a name in fewer tokens than SmolLM2.
    named = NAMED | dict(targets=40, window=(12, 1))
    c.datasets.single = training.dataset(FewShot, batch_size=single, **named, **BY_ALL)
    row = dict(length=72, targets=48)
    c.datasets.names = training.dataset(FewShot, batch_size=5, **COPIED | row, **BY_ALL)
    bind = dict(bind=game(Words, prompt=':', blend=1.0, real_words=0.3, classes=(2, 5)))
    c.datasets.words = training.dataset(FewShot, batch_size=words, shots=8, games=bind, images=8, **row, **DRAWINGS)
