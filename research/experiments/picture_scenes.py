"""Questions about what stands where in a scene, and how many; from the model of experiments/picture_dictionary.py.

    python -m data.picture_scenes.build --images=DATA/picture_dictionary/full/1.0.0 --out=DATA
    python -m flamingo_jax.features --data=DATA/picture_scenes/full/1.1.0 --vision=runs/trunk --out=runs/features_scenes
    python -m flamingo_jax.convert run --source=runs/picture_dictionary --out=runs/picture_dictionary_bundle
    python -m flamingo_jax.train --config=research/experiments/picture_scenes.py --workdir=runs/picture_scenes \
        --config.datasets.scenes.path=DATA/picture_scenes/full/1.1.0

It takes 11 minutes of one core. The model then counts a little (.32 to .44, chance .20) and names some thing of the
scene, but does not know where a thing is (research/small_model.md).
"""

from ml_collections import ConfigDict

from experiments import picture_dictionary
from flamingo_jax.tasks.questions import Questions
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """Four scenes a sequence, each with a question."""
    c = training.base()
    c.start = 'runs/picture_dictionary_bundle'
    c.steps = c.checkpoint_every = 500
    c.datasets.scenes = training.dataset(
        FewShot,
        shots=4,
        games=dict(question=game(Questions)),
        features='runs/features_scenes',
        length=80,
        images=4,
        batch_size=32,
    )
    c.optimizer = picture_dictionary.get_config().optimizer
    c.noise.feature_dropout = 0.1
    return c
