"""SMMILE: medical problems that are asked alone, and after the demonstrations that physicians chose for them.

    pip install 'flamingo_jax[build]'
    python -m flamingo_jax.evaluate --config=experiments/evaluate/smmile.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.smmile import SMMILE


def get_config() -> ConfigDict:
    """Answers are written, and ranked among those of the problem."""
    c = evaluation.base()
    c.episodes = evaluation.ALL
    c.tasks.smmile = evaluation.task(SMMILE, controls=('gain',))
    return c
