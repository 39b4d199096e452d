"""Clips: names of concepts whose stills were trained on, and directions of clips of concepts that were not.

    python -m flamingo_jax.evaluate --config=research/experiments/evaluate/picture_clips.py --workdir=DIR \
        --checkpoint=WORKDIR --config.data=DATA/picture_dictionary/clips/1.0.0 --config.features=runs/features_clips

`:stills` after the config's path shows only their first frame, which has no direction.
"""

from ml_collections import ConfigDict

from flamingo_jax import commands
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.tasks.direction import Direction
from flamingo_jax.tasks.names import Names


def get_config(part: str = '') -> ConfigDict:
    """All are of one style, fluent-anim. ValueError: the part is not known."""
    c = evaluation.base()
    c.frames, c.stills = 8, commands.part({'': False, 'stills': True}, part)
    c.tasks.names = evaluation.task(
        Names, title='names of clips', shots=(0, 4), answers=('ranked',), query_split='train', support_split='train'
    )
    if not c.stills:
        c.tasks.direction = evaluation.task(Direction, title='direction of clips', shots=(0, 4), support_split='train')
    return c
