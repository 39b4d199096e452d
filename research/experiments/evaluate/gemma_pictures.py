"""Names of drawings in 36 languages, which only the examples tell.

    python -m flamingo_jax.evaluate --config=research/experiments/evaluate/gemma_pictures.py --checkpoint=WORKDIR \
        --workdir=DIR --config.data=DATA/picture_dictionary/artists/1.0.0 --config.features=runs/artists

`:seen`, `:unseen` or `:english` after the config's path evaluates those languages alone. Training showed the things,
but nothing by the artist of the images asked about. `any candidate` is the share of answers that are a name of some
thing in the language. `told the names` is the language model alone, which reads the English names of all images.
"""

from ml_collections import ConfigDict

from experiments.evaluate.smollm_pictures import KNOWN, ONE_EACH
from experiments.smollm_pictures import NAME, SEEN, UNSEEN
from flamingo_jax import commands
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.tasks.names import Names


def get_config(part: str = '') -> ConfigDict:
    """All parts, or one. ValueError: the part is not known."""
    c = evaluation.base()
    parts = dict(english=('en',), seen=SEEN, unseen=UNSEEN)
    for name in [part] if part else parts:
        for language in commands.part(parts, name):
            c.tasks[f'{name}_{language}'] = evaluation.task(
                Names,
                title=f'names in {language} ({name})',
                language=language,
                shots=(0, 4) if language == 'en' else (4,),
                answers=('open-ended',),
                support=('random', 'rices'),
                prompt=NAME if language == 'en' else ':',
                told=True,
                **ONE_EACH,
                **KNOWN,
            )
    return c
