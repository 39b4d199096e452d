"""RareAct by mWAP, zero-shot. Held out in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/rareact.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

It has no training set, hence no examples.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.rareact import RareAct
from flamingo_jax.evaluation.prompts import named


def get_config(prompts: str = 'paper') -> ConfigDict:
    """Videos that have vanished are left out, as in the paper."""
    c = evaluation.base()
    c.episodes, c.batch_size = evaluation.ALL, 2
    c.tasks.rareact = evaluation.task(RareAct, prompts=named(prompts), skip_missing=True)
    return c
