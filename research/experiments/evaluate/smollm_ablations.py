"""What a bridge of `research/experiments/smollm_ablations.py` names and binds, of drawings by an artist new to it.

    python -m flamingo_jax.evaluate --config=research/experiments/evaluate/smollm_ablations.py --workdir=DIR \
        --checkpoint=runs/ablations/NAME --config.data=DATA/picture_dictionary/artists/1.0.0 \
        --config.features=runs/artists
"""

from ml_collections import ConfigDict

from experiments.evaluate.smollm_pictures import DRAWINGS, KNOWN
from experiments.smollm_pictures import NAME
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.words import Words


def get_config() -> ConfigDict:
    """English names, alone and beside similar drawings; new words for things that training showed, and for others."""
    c = evaluation.base()
    c.tasks.names = evaluation.task(
        Names,
        title='English names',
        shots=(0, 4),
        answers=('open-ended',),
        support=('rices',),
        prompt=NAME,
        controls=(),
        **DRAWINGS,
        **KNOWN,
    )
    words = dict(ways=3, shots=(1,), prompt=':', **DRAWINGS)
    known = words | KNOWN | dict(title='3-way new words, known things', controls=())
    c.tasks.words_known = evaluation.task(Words, **known)
    c.tasks.words = evaluation.task(Words, title='3-way new words, new things', **words)
    return c
