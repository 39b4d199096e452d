"""Questions about what stands where in a scene, and how many; from the bridge of experiments/smollm_pictures.py.

    python -m data.picture_scenes.build --config=tiled --pictures=DATA/picture_dictionary/artists/1.0.0 --out=DATA
    python -m flamingo_jax.features --data=DATA/picture_scenes/tiled/1.1.0 --vision=experiments/smollm_bridge \
        --out=runs/features_scenes
    ARTISTS=DATA/picture_dictionary/artists/1.0.0 SCENES=DATA/picture_scenes/tiled/1.1.0
    python -m flamingo_jax.train --config=experiments/smollm_scenes.py --workdir=runs/smollm_scenes \
        --config.lm=LMS/smollm2 --config.datasets.known.path=$ARTISTS --config.datasets.scenes.path=$SCENES \
        --config.datasets.described.path=$SCENES

A scene is shown as its whole and its four quarters, five tiles (LLaVA 1.6, Liu et al. 2024). The published bridge's
resampler reads each as a picture of its own, and stays frozen. An embedding of the tile's number tells the gated blocks
where they look; these learn to answer. Single drawings keep their names beside the scenes.

The gated blocks learn where to look from descriptions, `top left dog, bottom left taxi`: there the place stands right
before the thing, and each scene has several. From questions alone they had not begun to after 150 steps.
"""

from ml_collections import ConfigDict

from experiments import smollm_pictures
from experiments.smollm_pictures import KNOWN, SINGLE
from flamingo_jax.few_shot.kinds import asked
from flamingo_jax.few_shot.names import Names
from flamingo_jax.few_shot.questions import Questions
from flamingo_jax.few_shot.source import FewShot, game
from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """Scenes with a question, scenes with their description, and single drawings with their names."""
    c = smollm_pictures.base()
    smollm_pictures.from_published(c)
    c.model.tiles, c.optimizer.tree_factors.tiles = 5, 10.0
    c.datasets.known = training.dataset(FewShot, batch_size=2, **SINGLE, **KNOWN)
    scenes = dict(features='runs/features_scenes', frames=5, validation_split='validation', batch_size=8)
    questions = dict(shots=4, games=dict(question=game(Questions)), length=64, targets=16, images=4)
    c.datasets.scenes = training.dataset(FewShot, **questions, **scenes)
    descriptions = dict(shots=2, games=dict(describe=game(Names, prompt=asked('what is where?'))))
    c.datasets.described = training.dataset(FewShot, **descriptions, length=60, targets=44, images=2, **scenes)
    c.noise.feature_dropout = 0.0
    c.steps = 600
    c.optimizer.update(learning_rate=1e-3, warmup_steps=50)
    return c
