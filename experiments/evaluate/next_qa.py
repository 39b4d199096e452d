"""NExT-QA by WUPS, few-shot. Held out in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/next_qa.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

The videos are 30 frames each, 3 a second.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.next_qa import NExTQA
from flamingo_jax.evaluation.prompts import named


def get_config(prompts: str = 'paper') -> ConfigDict:
    """Random examples."""
    c = evaluation.base()
    c.episodes, c.max_new_tokens, c.batch_size = evaluation.ALL, 10, 2
    c.tasks.next_qa = evaluation.task(NExTQA, prompts=named(prompts))
    return c
