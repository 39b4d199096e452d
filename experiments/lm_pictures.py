"""Pretrains a language model that is to be asked about pictures in 36 languages, on text alone.

    data/dictionary_text/fetch.sh RAW
    python -m data.dictionary_text.build --raw=RAW --out=DATA --config=copying_full
    python -m data.dictionary_text.build --raw=RAW --out=DATA --config=full
    python -m flamingo_jax.inputs.tokenizer --data=DATA/dictionary_text/full/1.8.0 --records=60000 --vocab_size=8192 \
        --out=lm.model
    python -m flamingo_jax.train --config=experiments/lm_pictures.py --workdir=runs/lm_pictures --config.tokenizer=lm.model \
        --config.datasets.text.path=DATA/dictionary_text/copying_full/1.8.0 \
        --config.steps=1200 --config.noise.text=0 --config.noise.vocabulary=0
    python -m flamingo_jax.train --config=experiments/lm_pictures.py --workdir=runs/lm_pictures --config.tokenizer=lm.model \
        --config.datasets.text.path=DATA/dictionary_text/full/1.8.0
    python -m flamingo_jax.convert run --source=runs/lm_pictures --out=runs/lm_pictures_bundle

The first 1,200 steps teach it to copy, which comes suddenly; the others, with noise in half of the rows, to copy from likeness,
to follow the language of its context, to tell kinds, and to answer about one of two things.
"""

from ml_collections import ConfigDict

from experiments import lm_dictionary


def get_config() -> ConfigDict:
    """A decoder of 3.3M parameters: that of the quickstart with 8,192 pieces, ALiBi and a context of 256."""
    c = lm_dictionary.get_config()
    c.model.lm.update(vocab_size=8192, positions='alibi', context=256)
    return c
