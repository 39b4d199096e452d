"""One's own images that training did not show: what are they called?

    python -m flamingo_jax.evaluate --config=experiments/evaluate/own_images.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=DATA/own_images/full/1.0.0
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.tasks.names import Names


def get_config() -> ConfigDict:
    """The name is written freely, and ranked among those of all one's things."""
    c = evaluation.base()
    c.episodes, c.max_new_tokens, c.num_beams = 200, 24, 1
    c.tasks.names = evaluation.task(
        Names,
        title='names of own images',
        shots=(0, 4),
        answers=('ranked', 'open-ended'),
        support=('random', 'rices'),
        query_split='test',
        support_split='train',
    )
    return c
