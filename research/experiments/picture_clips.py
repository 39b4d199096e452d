"""Names and directions of animated clips of 8 frames; from the model of experiments/picture_dictionary.py.

    bash data/picture_dictionary/fetch.sh --animations RAW
    python -m data.picture_dictionary.build --raw=RAW --out=DATA --config=clips
    python -m flamingo_jax.features --data=DATA/picture_dictionary/clips/1.0.0 --vision=runs/trunk \
        --out=runs/features_clips
    python -m flamingo_jax.convert run --source=runs/picture_dictionary --out=runs/picture_dictionary_bundle
    python -m flamingo_jax.train --config=research/experiments/picture_clips.py --workdir=runs/picture_clips \
        --config.datasets.clips.path=DATA/picture_dictionary/clips/1.0.0

It takes 18 minutes of one core. The model then names its own clips without a fault, and guesses the direction of others
(.48 to .50, chance .50; research/small_model.md).
"""

from ml_collections import ConfigDict

from experiments import picture_dictionary
from flamingo_jax.tasks.direction import Direction
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """Four clips a sequence, in either direction, or with their names, lest they be forgotten."""
    c = training.base()
    c.start = 'runs/picture_dictionary_bundle'
    c.steps = c.checkpoint_every = 1000
    c.datasets.clips = training.dataset(
        FewShot,
        shots=4,
        games=dict(direction=game(Direction, share=0.5), name=game(Names, share=0.5)),
        features='runs/features_clips',
        length=40,
        images=4,
        frames=8,
        batch_size=16,
    )
    c.optimizer = picture_dictionary.get_config().optimizer
    c.noise.feature_dropout = 0.1
    return c
