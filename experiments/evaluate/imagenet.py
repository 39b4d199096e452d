"""ImageNet by top-1, few-shot. DEV in the paper's table of sets.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/imagenet.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

`:open_flamingo` after the config's path asks as OpenFlamingo does by default: its prompts, likelihoods by length,
random examples of 2,048 training images, and two without images in 0-shot prompts. `:idefics` does so with the prompts
of an IDEFICS. To retrieve examples as its --rices: --config.clip=BUNDLE and
--config.tasks.imagenet.support="('rices by clip',)"; as its --classification_prompt_ensembling: ...orders=6.
To tune on training images: --config.tasks.imagenet.query_split=dev.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.imagenet import ImageNet
from flamingo_jax.evaluation.prompts import named


def get_config(prompts: str = 'paper') -> ConfigDict:
    """The paper's best row: RICES among 5 images of each class, averaged over 6 orders (table 7)."""
    c = evaluation.base()
    c.episodes = evaluation.ALL
    if prompts == 'paper':
        how = dict(shots=(16,), support=('rices',), orders=6)
    else:
        how = dict(answers=('ranked by length',), support_size=2048, of_each_class=False, text_examples_ranked=2)
    c.tasks.imagenet = evaluation.task(ImageNet, prompts=named(prompts), **how)
    return c
