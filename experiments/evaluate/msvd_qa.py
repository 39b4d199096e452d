"""MSVD-QA by top-1, few-shot. DEV in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/msvd_qa.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

To tune on training questions: --config.tasks.msvd_qa.query_split=dev.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.msvd_qa import MSVDQA
from flamingo_jax.evaluation.prompts import named


def get_config(prompts: str = 'paper') -> ConfigDict:
    """Random examples."""
    c = evaluation.base()
    c.episodes, c.max_new_tokens, c.batch_size = evaluation.ALL, 5, 2
    c.tasks.msvd_qa = evaluation.task(MSVDQA, prompts=named(prompts))
    return c
