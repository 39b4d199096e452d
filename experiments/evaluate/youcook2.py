"""Captions of YouCook2 by CIDEr, few-shot. Held out in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/youcook2.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

The videos are 30 frames each, 3 a second.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.youcook2 import YouCook2
from flamingo_jax.evaluation.prompts import named


def get_config(prompts: str = 'paper') -> ConfigDict:
    """Videos that have vanished are left out, as in the paper."""
    c = evaluation.base()
    c.episodes, c.max_new_tokens, c.batch_size = evaluation.ALL, 20, 2
    c.tasks.youcook2 = evaluation.task(YouCook2, prompts=named(prompts), skip_missing=True)
    return c
