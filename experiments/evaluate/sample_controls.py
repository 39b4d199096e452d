"""Every control of the demonstrations on drawings in the repository: six minutes on two CPU cores.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/sample_controls.py \
        --checkpoint=experiments/picture_dictionary --workdir=DIR

What the controls mean is in docs/metrics.md.
"""

from ml_collections import ConfigDict

from experiments.quickstart import STYLES
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.words import Words


def get_config() -> ConfigDict:
    """New words, which only the demonstrations tell, and names, which the model knows."""
    c = evaluation.base()
    c.data, c.episodes = 'data/picture_dictionary/sample', 60
    common = dict(controls=('all',), query_styles=('fluent-3d',), support_styles=STYLES)
    c.tasks.words = evaluation.task(Words, title='5-way new words', ways=5, shots=(1, 2), **common)
    c.tasks.names = evaluation.task(Names, shots=(4,), query_split='train', support_split='train', **common)
    return c
