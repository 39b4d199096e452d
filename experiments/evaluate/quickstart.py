"""Few-shot evaluation of the quickstart's model, on queries in a style that it was never trained on.

python -m flamingo_jax.evaluate --config=experiments/evaluate/quickstart.py --checkpoint=WORKDIR --workdir=DIR
"""

from ml_collections import ConfigDict

from experiments.quickstart import STYLES
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.words import Words


def get_config() -> ConfigDict:
    """True names of concepts that were trained on, and invented names of concepts that were not."""
    c = evaluation.base()
    c.data = 'data/picture_dictionary/sample'
    c.episodes = 200
    styles = dict(query_styles=('fluent-3d',), support_styles=STYLES)
    c.tasks.names = evaluation.task(
        Names, shots=(0, 4), answers=('open-ended',), query_split='train', support_split='train', **styles
    )
    c.tasks.words = evaluation.task(
        Words, title='5-way new words', ways=5, shots=(1, 2), query_split='test', support_split='test', **styles
    )
    return c
