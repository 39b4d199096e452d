"""Few-shot evaluation of the quickstart's model: concepts never trained on, queries in a style never trained on.

python -m flamingo_jax.evaluate --config=experiments/evaluate/quickstart.py --checkpoint=WORKDIR --workdir=DIR
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation

TRAINED_STYLES = ('noto', 'noto-v1', 'fluent-flat')


def get_config() -> ConfigDict:
    """New words, 2-way and 5-way, at 1 and 2 shots."""
    c = evaluation.base()
    c.data = 'data/picture_dictionary/sample'
    c.episodes = 400
    unseen = dict(query_split='test', support_split='test', query_styles=('fluent-3d',), support_styles=TRAINED_STYLES)
    c.tasks['2-way new words'] = evaluation.task(ways=2, shots=(1, 2), **unseen)
    c.tasks['5-way new words'] = evaluation.task(ways=5, shots=(1, 2), answers=('ranked', 'open-ended'), **unseen)
    return c
