"""Questions about what stands where in a scene, and how many; from the bridge of experiments/smollm_pictures.py.

    for CONFIG in quarters ninths; do
      python -m data.picture_scenes.build --config=$CONFIG --pictures=DATA/picture_dictionary/artists/1.0.0 --out=DATA
      python -m flamingo_jax.features --data=DATA/picture_scenes/$CONFIG/1.1.0 --vision=experiments/smollm_bridge \
          --out=runs/features_$CONFIG
    done
    ARTISTS=DATA/picture_dictionary/artists/1.0.0
    python -m flamingo_jax.train --config=experiments/smollm_scenes.py --workdir=runs/smollm_scenes \
        --config.lm=LMS/smollm2 --config.datasets.known.path=$ARTISTS --config.datasets.pairs.path=$ARTISTS \
        --config.datasets.quarters.path=DATA/picture_scenes/quarters/1.1.0 \
        --config.datasets.ninths.path=DATA/picture_scenes/ninths/1.1.0

A scene is shown as pictures of its parts, each with its place, and as a whole (LLaVA 1.6, Liu et al. 2024). So
`where is the dog?` asks which of several pictures shows a dog, as the published bridge is asked of pairs; and `how
many: dog?`, of nine parts, how many do. Nothing is added to the model, and its resampler stays frozen. Single drawings
and pairs keep what the bridge knew.
"""

from ml_collections import ConfigDict

from experiments import smollm_pictures
from experiments.smollm_pictures import ASKED, BY_ALL, DRAWINGS, PAIRS
from flamingo_jax.few_shot.questions import Questions
from flamingo_jax.few_shot.source import FewShot, game
from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """Scenes in four parts and in nine, each with two questions, beside single drawings and pairs."""
    c = smollm_pictures.base()
    smollm_pictures.from_published(c)
    c.datasets.known = training.dataset(FewShot, batch_size=4, **ASKED, **BY_ALL)
    c.datasets.pairs = training.dataset(FewShot, batch_size=1, **PAIRS, **DRAWINGS)
    for name, tiles, room in (('quarters', 5, 48), ('ninths', 10, 64)):
        asked = dict(shots=1, tiles=tiles, games=dict(ask=game(Questions, each=2, tiled=True)))
        row = dict(documents=2, window=(room, tiles), length=2 * room, images=2 * tiles, targets=16)
        c.datasets[name] = training.dataset(
            FewShot, batch_size=6, features=f'runs/features_{name}', validation_split='validation', **asked, **row
        )
    c.noise.feature_dropout = 0.0
    c.steps = 300
    c.optimizer.update(learning_rate=8e-4)
    return c
