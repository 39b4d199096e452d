"""Trains the language model of experiments/lm_pictures.py further, on text that is mostly names in 36 languages.

    python -m data.dictionary_text.build --raw=RAW --out=DATA --config=names_full
    python -m flamingo_jax.train --config=experiments/lm_names.py --workdir=runs/lm_names \
        --config.start=runs/lm_pictures_bundle --config.datasets.text.path=DATA/dictionary_text/names_full/1.8.0
    python -m flamingo_jax.convert run --source=runs/lm_names --out=runs/lm_names_bundle

To name an image in some language, the frozen language model must be able to write a name in it, even if it is not
sure of the thing. The model of lm_pictures mostly writes no whole name for a thing that it does not know
(research/analyses/names_in_text.py; research/small_model.md, "What limits it").
"""

from ml_collections import ConfigDict

from experiments import lm_pictures


def get_config() -> ConfigDict:
    """The last stage of lm_pictures, from a bundle."""
    c = lm_pictures.get_config()
    c.model.lm = None  # `start` brings it.
    c.steps = 12_500
    return c
