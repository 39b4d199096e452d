"""VisDial by NDCG, few-shot. Held out in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/visdial.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

`:open_flamingo` after the config's path writes the prompts, and reads the answers, as OpenFlamingo does, and `:idefics`
as its suite does for an IDEFICS.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.visdial import VisDial
from flamingo_jax.evaluation.prompts import named


def get_config(prompts: str = 'paper') -> ConfigDict:
    """At most 16 shots: 32 dialogues exceed the context of most models."""
    c = evaluation.base()
    c.episodes = evaluation.ALL
    c.tasks.visdial = evaluation.task(VisDial, prompts=named(prompts))
    return c
