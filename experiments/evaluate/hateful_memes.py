"""Hateful Memes by ROC AUC, few-shot. Held out in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/hateful_memes.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

`:open_flamingo` after the config's path asks as OpenFlamingo does: its prompts, likelihoods by length, the split
dev_seen, two examples without images in 0-shot prompts, and beside random examples those of its --rices, which need
--config.clip=BUNDLE. `:idefics` does so with the prompts of an IDEFICS.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.hateful_memes import HatefulMemes
from flamingo_jax.evaluation.prompts import named, retrieval


def get_config(prompts: str = 'paper') -> ConfigDict:
    """Random examples, and those most similar to the query."""
    c = evaluation.base()
    c.episodes = evaluation.ALL
    how = {}
    if prompts != 'paper':
        how = dict(answers=('ranked by length',), query_split='dev_seen', text_examples_ranked=2)
    support = ('random', retrieval(prompts))
    c.tasks.hateful_memes = evaluation.task(HatefulMemes, prompts=named(prompts), support=support, **how)
    return c
