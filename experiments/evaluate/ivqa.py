"""iVQA by its soft accuracy, few-shot. Held out in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/ivqa.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

The videos are 30 frames each, 3 a second.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.ivqa import IVQA
from flamingo_jax.evaluation.prompts import named


def get_config(prompts: str = 'paper') -> ConfigDict:
    """Videos that have vanished are left out, as in the paper."""
    c = evaluation.base()
    c.episodes, c.max_new_tokens, c.batch_size = evaluation.ALL, 5, 2
    c.tasks.ivqa = evaluation.task(IVQA, prompts=named(prompts), skip_missing=True)
    return c
