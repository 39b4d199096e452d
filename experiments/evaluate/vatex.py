"""Captions of VATEX by CIDEr, few-shot. DEV in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/vatex.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

To tune on training videos: --config.tasks.vatex.query_split=dev. For the server: ...query_split=private_test.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.vatex import VATEX
from flamingo_jax.evaluation.prompts import named


def get_config(prompts: str = 'paper') -> ConfigDict:
    """Videos that have vanished are left out, as in the paper."""
    c = evaluation.base()
    c.episodes, c.max_new_tokens, c.batch_size = evaluation.ALL, 20, 2
    c.tasks.vatex = evaluation.task(VATEX, prompts=named(prompts), skip_missing=True)
    return c
