"""python -m flamingo_jax.evaluate --config=experiments/evaluate/counting.py --checkpoint=BUNDLE --workdir=DIR"""

from flamingo_jax.evaluation.datasets.counting import Counting

from flamingo_jax.evaluation import config as evaluation


def get_config():
    """Without examples, and with four."""
    c = evaluation.base()
    c.tasks.counting = evaluation.task(Counting, shots=(0, 4), query_split='test')
    return c
