"""What the model in the repository makes of the drawings in the repository: a few minutes on two CPU cores.

python -m flamingo_jax.evaluate --config=experiments/evaluate/sample.py --checkpoint=experiments/picture_dictionary \
    --workdir=DIR
"""

from ml_collections import ConfigDict

from experiments.evaluate.quickstart import TRAINED_STYLES
from experiments.picture_words import KINDS
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.few_shot.kinds import Kinds
from flamingo_jax.few_shot.names import Names
from flamingo_jax.few_shot.which import Which
from flamingo_jax.few_shot.words import Words
from flamingo_jax.few_shot.yes_or_no import YesOrNo


def get_config() -> ConfigDict:
    """Captions and questions: names, new words, kinds, yes or no, and one of two pictures."""
    c = evaluation.base()
    c.data = 'data/picture_dictionary/sample'
    c.episodes = 100
    styles = dict(query_styles=('fluent-3d',), support_styles=TRAINED_STYLES)
    c.tasks.names = evaluation.task(Names, shots=(4,), query_split='train', support_split='train', **styles)
    c.tasks.words = evaluation.task(Words, title='5-way new words', ways=5, shots=(1,), **styles)
    c.tasks.kinds = evaluation.task(Kinds, title='what kind of thing', kinds=KINDS, shots=(4,), **styles)
    c.tasks.yes_or_no = evaluation.task(YesOrNo, title='is it an animal?', kinds=KINDS, shots=(4,), **styles)
    c.tasks.which = evaluation.task(
        Which, title='which is an animal?', kinds=KINDS, questions='which', shots=(0,), **styles
    )
    return c
