"""Names of drawings by an artist that research/experiments/contrastive_pictures.py never showed, by its two towers.

    python -m flamingo_jax.evaluate --config=research/experiments/evaluate/contrastive_pictures.py --workdir=DIR \
        --checkpoint=BUNDLE_OR_WORKDIR --config.data=DATA/picture_dictionary/full/1.0.0

`nearest centroid` and `nearest neighbour` are by the trunk alone, among the artists that were trained on.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.tasks.names import Names
from research.experiments.contrastive_pictures import STYLES


def get_config() -> ConfigDict:
    """Things that training showed, and things that it did not."""
    c = evaluation.base()
    c.episodes = 400
    for split in ('train', 'test'):
        c.tasks[split] = evaluation.task(
            Names,
            title=f'names in the style of twemoji, {split}',
            answers=('compared',),
            shots=(0,),
            query_styles=('twemoji',),
            support_styles=STYLES,
            query_split=split,
            support_split=split,
        )
    return c
