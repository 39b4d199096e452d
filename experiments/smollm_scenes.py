"""Questions about what stands where in a scene, and how many; from the bridge of experiments/smollm_pictures.py.

    python -m data.picture_scenes.build --config=tiled --pictures=DATA/picture_dictionary/artists/1.0.0 --out=DATA
    python -m flamingo_jax.features --data=DATA/picture_scenes/tiled/1.1.0 --vision=experiments/smollm_bridge \
        --out=runs/features_scenes
    ARTISTS=DATA/picture_dictionary/artists/1.0.0 SCENES=DATA/picture_scenes/tiled/1.1.0
    python -m flamingo_jax.train --config=experiments/smollm_scenes.py --workdir=runs/smollm_scenes \
        --config.lm=LMS/smollm2 --config.datasets.known.path=$ARTISTS --config.datasets.pairs.path=$ARTISTS \
        --config.datasets.scenes.path=$SCENES

A scene is shown as five pictures, its four quarters with their places and its whole (LLaVA 1.6, Liu et al. 2024). So
`where is the dog?` asks which of several pictures shows a dog, as the published bridge is asked of pairs. The resampler
is trained too, since it has learned to name things, and names hardly need their number. Single drawings and pairs keep
what the bridge knew.
"""

from ml_collections import ConfigDict

from experiments import smollm_pictures
from experiments.smollm_pictures import ASKED, BY_ALL, DRAWINGS, PAIRS
from flamingo_jax.few_shot.questions import Questions
from flamingo_jax.few_shot.source import FewShot, game
from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """Scenes, each with two questions, beside single drawings and pairs."""
    c = smollm_pictures.base()
    smollm_pictures.from_published(c)
    c.datasets.known = training.dataset(FewShot, batch_size=4, **ASKED, **BY_ALL)
    c.datasets.pairs = training.dataset(FewShot, batch_size=1, **PAIRS, **DRAWINGS)
    scenes = dict(shots=1, tiles=5, games=dict(ask=game(Questions, asked=2, tiled=True)))
    scenes |= dict(length=112, targets=24, images=10, documents=2, window=(56, 5))
    c.datasets.scenes = training.dataset(
        FewShot, batch_size=10, features='runs/features_scenes', validation_split='validation', **scenes
    )
    c.trained = ('resampler', *c.trained)
    c.noise.feature_dropout = 0.0
    c.steps = 450
    c.optimizer.update(learning_rate=8e-4)
    c.optimizer.tree_factors.resampler = 0.5
    return c
