"""Few-shot evaluation over the whole picture dictionary: new words, and names with random and RICES support.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/picture_dictionary.py --checkpoint=WORKDIR \
        --workdir=DIR --config.data=DATA/picture_dictionary/full/1.0.0 --config.features=runs/features
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation

STYLES = ('noto', 'twemoji', 'openmoji-color', 'fluent-flat')


def get_config() -> ConfigDict:
    """Held-out concepts for new words, a held-out style and photographs for names."""
    c = evaluation.base()
    for ways in (2, 5):
        c.tasks[f'{ways}-way new words'] = evaluation.task(
            ways=ways, shots=(1, 2, 4), query_styles=('fluent-3d',), support_styles=STYLES
        )
    # More exceed the 128 tokens of the context of experiments/lm_dictionary; names of photographs have up to 64 of them.
    for label, style, shots in (('drawings', 'fluent-3d', (0, 1, 2, 4, 8)), ('photographs', 'tux-photo', (0, 1, 2, 4))):
        c.tasks[f'names of {label}'] = evaluation.task(
            ways=0,
            shots=shots,
            support=('random', 'rices'),
            answers=('ranked', 'open-ended'),
            query_split='train',
            query_styles=(style,),
            support_split='train',
            support_styles=STYLES,
        )
    return c
