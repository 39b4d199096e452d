"""Goes on from the language model of experiments/lm_pictures.py with text that is mostly names of things in 36 languages.

    python -m data.dictionary_text.build --raw=RAW --out=DATA --config=names_full
    python -m flamingo_jax.train --config=experiments/lm_names.py --workdir=runs/lm_names \
        --config.start=runs/lm_pictures_bundle --config.datasets.text.path=DATA/dictionary_text/names_full/1.8.0
    python -m flamingo_jax.convert run --source=runs/lm_names --out=runs/lm_names_bundle

A picture's name in a language is one that the frozen language model must be able to write, whether it is sure of the thing or
not. Of a thing that it did not know lm_pictures mostly wrote no whole name (benchmarks/names_in_text.py; docs/results.md,
"What limits it").
"""

from ml_collections import ConfigDict

from experiments import lm_pictures


def get_config() -> ConfigDict:
    """The last stage of lm_pictures, from a bundle."""
    c = lm_pictures.get_config()
    c.model.lm = None  # `start` brings it.
    c.steps = 12_500
    return c
