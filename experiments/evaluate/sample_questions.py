"""Questions about drawings in the repository, which its model never saw: a minute on two CPU cores.

python -m flamingo_jax.evaluate --config=experiments/evaluate/sample_questions.py \
    --checkpoint=experiments/picture_dictionary --workdir=DIR
"""

from ml_collections import ConfigDict

from experiments.picture_words import KINDS
from experiments.quickstart import STYLES
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.tasks.kinds import Kinds
from flamingo_jax.tasks.which import Which
from flamingo_jax.tasks.yes_or_no import YesOrNo


def get_config() -> ConfigDict:
    """What kind of thing, yes or no, and which of two images."""
    c = evaluation.base()
    c.data = 'data/picture_dictionary/sample'
    c.episodes = 100
    common = dict(kinds=KINDS, query_styles=('fluent-3d',), support_styles=STYLES)
    c.tasks.kinds = evaluation.task(Kinds, title='what kind of thing', shots=(4,), **common)
    c.tasks.yes_or_no = evaluation.task(YesOrNo, title='is it an animal?', shots=(4,), **common)
    c.tasks.which = evaluation.task(Which, title='which is an animal?', questions='which', shots=(0,), **common)
    return c
