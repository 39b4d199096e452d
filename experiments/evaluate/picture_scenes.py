"""Questions about scenes with held-out compositions, in the styles that were trained on and in one that was not.

python -m flamingo_jax.evaluate --config=experiments/evaluate/picture_scenes.py --checkpoint=WORKDIR --workdir=DIR \
    --config.data=DATA/picture_scenes/full/1.1.0 --config.features=runs/features_scenes

`picture_scenes.py:tiled` shows the scenes of DATA/picture_scenes/tiled/1.1.0 tile by tile.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.few_shot.questions import Questions


def get_config(form: str = 'whole') -> ConfigDict:
    """What is there, where it is, how many there are. ValueError: the form is neither 'whole' nor 'tiled'."""
    if form not in ('whole', 'tiled'):
        raise ValueError(f'Scenes are shown whole or tiled, and not {form!r}.')
    c = evaluation.base()
    c.frames = 5 if form == 'tiled' else 1
    for question in ('what is in', 'where is', 'how many'):
        for style, styles in (
            ('trained styles', ('noto', 'twemoji', 'openmoji-color', 'fluent-flat')),
            ('fluent-3d', ('fluent-3d',)),
        ):
            c.tasks[f'{question}_{style}'.replace(' ', '_').replace('-', '_')] = evaluation.task(
                Questions,
                title=f'{question}, {style}',
                questions=question,
                tiled=form == 'tiled',
                shots=(0, 2),
                query_styles=styles,
                support_split='train',
            )
    return c
