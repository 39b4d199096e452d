"""Pretrains a language model on text alone, for a Flamingo that is asked about images in 36 languages.

    data/dictionary_text/fetch.sh RAW
    python -m data.dictionary_text.build --raw=RAW --out=DATA --config=copying_full
    python -m data.dictionary_text.build --raw=RAW --out=DATA --config=full
    python -m flamingo_jax.inputs.tokenizer --data=DATA/dictionary_text/full/1.8.0 --records=60000 --vocab_size=8192 \
        --out=lm.model
    python -m flamingo_jax.train --config=experiments/lm_pictures.py:copying --workdir=runs/lm_pictures \
        --config.tokenizer=lm.model --config.datasets.text.path=DATA/dictionary_text/copying_full/1.8.0
    python -m flamingo_jax.train --config=experiments/lm_pictures.py:likeness --workdir=runs/lm_pictures \
        --config.tokenizer=lm.model --config.datasets.text.path=DATA/dictionary_text/copying_full/1.8.0
    python -m flamingo_jax.train --config=experiments/lm_pictures.py --workdir=runs/lm_pictures \
        --config.tokenizer=lm.model --config.datasets.text.path=DATA/dictionary_text/full/1.8.0
    python -m flamingo_jax.convert run --source=runs/lm_pictures --out=runs/lm_pictures_bundle

The first 1,200 steps teach it to copy, which comes suddenly. The next 800 have noise in half of the rows. This teaches
it to copy from keys that are only alike, since an image is never the same key twice. The other steps teach it what
it will be asked about images: names in the language of its context, kinds, questions. They have little noise,
because a fact can only be learned about a key that is recognised.
"""

from ml_collections import ConfigDict

from experiments import lm_dictionary
from flamingo_jax import commands


def get_config(stage: str = '') -> ConfigDict:
    """A decoder of 3.3M parameters: that of the quickstart with 8,192 pieces, ALiBi and a context of 256.

    The stages, each of which goes on in the same workdir, are 'copying', 'likeness' and ''. ValueError for another.
    """
    c = lm_dictionary.get_config()
    c.model.lm.update(vocab_size=8192, positions='alibi', context=256)
    c.steps = commands.part({'copying': 1200, 'likeness': 2000, '': 10_000}, stage)
    if stage == 'copying':
        c.noise.text, c.noise.vocabulary = 0.0, 0.0
    elif stage == '':
        c.noise.text, c.noise.vocabulary, c.optimizer.final_fraction = 0.2, 0.3, 0.05
    return c
