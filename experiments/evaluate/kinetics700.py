"""Kinetics-700-2020 by the mean of top-1 and top-5, few-shot. DEV in the paper's table of sets.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/kinetics700.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

To tune on training videos: --config.tasks.kinetics700.query_split=dev.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.kinetics700 import Kinetics700
from flamingo_jax.evaluation.prompts import named


def get_config(prompts: str = 'paper') -> ConfigDict:
    """The paper's best row: RICES among 5 videos of each class, averaged over 6 orders (table 7)."""
    c = evaluation.base()
    c.episodes, c.batch_size = evaluation.ALL, 2
    c.tasks.kinetics700 = evaluation.task(
        Kinetics700, prompts=named(prompts), shots=(16,), support=('rices',), orders=6, skip_missing=True
    )
    return c
