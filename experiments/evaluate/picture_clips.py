"""Clips: their names, of concepts whose stills were trained on, and their direction, of concepts that were not.

python -m flamingo_jax.evaluate --config=experiments/evaluate/picture_clips.py --checkpoint=WORKDIR --workdir=DIR \
    --config.data=DATA/picture_dictionary/clips/1.0.0 --config.features=runs/features_clips

`--config.stills` shows their first frame alone.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation


def get_config() -> ConfigDict:
    """All are of one style, fluent-anim."""
    c = evaluation.base()
    c.frames = 8
    c.tasks['names of clips'] = evaluation.task(
        asks='names', shots=(0, 4), answers=('ranked',), query_split='train', support_split='train'
    )
    c.tasks['direction of clips'] = evaluation.task(asks='direction', shots=(0, 4), support_split='train')
    return c
