"""Questions about scenes with held-out compositions, in the styles that were trained on and in one that was not.

python -m flamingo_jax.evaluate --config=experiments/evaluate/picture_scenes.py --checkpoint=WORKDIR --workdir=DIR \
    --config.data=DATA/picture_scenes/full/1.1.0 --config.features=runs/features_scenes

`picture_scenes.py:quarters` shows the scenes of DATA/picture_scenes/quarters/1.1.0 tile by tile, and so does `:ninths`.
"""

from ml_collections import ConfigDict

from flamingo_jax import commands
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.tasks.questions import Questions

FRAMES = {'whole': 1, 'quarters': 5, 'ninths': 10}


def get_config(form: str = 'whole') -> ConfigDict:
    """What is there, where it is, how many there are. ValueError: there is no such form of scenes."""
    c = evaluation.base()
    c.frames = commands.part(FRAMES, form)
    for question in ('what is in', 'where is', 'how many'):
        for style, styles in (
            ('trained styles', ('noto', 'twemoji', 'openmoji-color', 'fluent-flat')),
            ('fluent-3d', ('fluent-3d',)),
        ):
            c.tasks[f'{question}_{style}'.replace(' ', '_').replace('-', '_')] = evaluation.task(
                Questions,
                title=f'{question}, {style}',
                questions=question,
                tiled=form != 'whole',
                shots=(0, 2),
                query_styles=styles,
                support_split='train',
            )
    return c
