"""Captions of COCO by CIDEr, few-shot. DEV in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/coco.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

`:open_flamingo` after the config's path writes the prompts, and reads the answers, as OpenFlamingo does, and `:idefics`
as its suite does for an IDEFICS. Both retrieve examples by a CLIP, as OpenFlamingo's --rices: --config.clip=BUNDLE.
To tune on training images: --config.tasks.coco.query_split=dev. For COCO's server: ...query_split=test2014.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.coco import COCO
from flamingo_jax.evaluation.prompts import named, retrieval


def get_config(prompts: str = 'paper') -> ConfigDict:
    """Random examples, and those most similar to the query."""
    c = evaluation.base()
    c.episodes, c.max_new_tokens = evaluation.ALL, 20
    support = ('random', retrieval(prompts))
    # OpenFlamingo's examples are without the validation images that are free to train on.
    support_split = 'train' if prompts == 'paper' else 'train2014'
    c.tasks.coco = evaluation.task(COCO, prompts=named(prompts), support=support, support_split=support_split)
    return c
