"""ImageNet by top-1, few-shot. DEV in the paper's table of sets.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/imagenet.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

`:open_flamingo` after the config's path writes the prompts, and reads the answers, as OpenFlamingo does. `:idefics` has
the prompts of an IDEFICS and ranks as OpenFlamingo does.
To tune on training pictures: --config.tasks.imagenet.query_split=dev.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.benchmarks.imagenet import ImageNet
from flamingo_jax.evaluation.prompts import named


def get_config(prompts: str = 'paper') -> ConfigDict:
    """The paper's best row: RICES among 5 pictures of each class, averaged over 6 orders (table 7)."""
    c = evaluation.base()
    c.episodes = evaluation.ALL
    answers = ('ranked',) if prompts == 'paper' else ('ranked by length',)
    c.tasks.imagenet = evaluation.task(
        ImageNet, prompts=named(prompts), answers=answers, shots=(16,), support=('rices',), orders=6
    )
    return c
