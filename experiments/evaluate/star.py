"""STAR by top-1, few-shot. Held out in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/star.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

The videos are 30 frames each, 3 a second. The default split is val; answers to test are not published.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.star import STAR
from flamingo_jax.evaluation.prompts import named


def get_config(prompts: str = 'paper') -> ConfigDict:
    """The answer is ranked among the four choices."""
    c = evaluation.base()
    c.episodes, c.batch_size = evaluation.ALL, 2
    c.tasks.star = evaluation.task(STAR, prompts=named(prompts))
    return c
