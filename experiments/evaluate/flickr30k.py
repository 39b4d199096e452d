"""Captions of Flickr30k by CIDEr, few-shot. Held out in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/flickr30k.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

`:open_flamingo` after the config's path writes the prompts, and reads the answers, as OpenFlamingo does, and `:idefics`
as its suite does for an IDEFICS. Both retrieve examples by a CLIP, as OpenFlamingo's --rices: --config.clip=BUNDLE.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.flickr30k import Flickr30k
from flamingo_jax.evaluation.prompts import named, retrieval


def get_config(prompts: str = 'paper') -> ConfigDict:
    """Random examples, and those most similar to the query."""
    c = evaluation.base()
    c.episodes, c.max_new_tokens = evaluation.ALL, 20
    c.tasks.flickr30k = evaluation.task(Flickr30k, prompts=named(prompts), support=('random', retrieval(prompts)))
    return c
