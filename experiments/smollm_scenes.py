"""Questions about what stands where in a scene, and how many; from the bridge of experiments/smollm_pictures.py.

    python -m data.picture_scenes.build --config=tiled --pictures=DATA/picture_dictionary/artists/1.0.0 --out=DATA
    python -m flamingo_jax.features --data=DATA/picture_scenes/tiled/1.0.0 --vision=experiments/smollm_bridge \
        --out=runs/features_scenes
    ARTISTS=DATA/picture_dictionary/artists/1.0.0 SCENES=DATA/picture_scenes/tiled/1.0.0
    python -m flamingo_jax.train --config=experiments/smollm_scenes.py:contrast --workdir=runs/scenes_contrast \
        --config.lm=LMS/smollm2 --config.datasets.known.path=$ARTISTS --config.datasets.scenes.path=$SCENES
    python -m flamingo_jax.convert run --source=runs/scenes_contrast --out=runs/scenes_resampler
    python -m flamingo_jax.train --config=experiments/smollm_scenes.py --workdir=runs/smollm_scenes \
        --config.lm=LMS/smollm2 --config.datasets.known.path=$ARTISTS --config.datasets.scenes.path=$SCENES

A scene is shown as itself and its four quarters, as five frames of a video. The resampler has no spatial positions, but
its time embeddings tell which quarter it sees.

As in smollm_pictures.py, the resampler learns first, alone (`contrast`): each question with its answer is a class, such
as `what is in the top left? dog`. Then the gated blocks learn to answer, with the resampler frozen. Both go on from
the published bridge; single drawings, which are one frame, keep their names beside the scenes.
"""

from ml_collections import ConfigDict

from experiments import smollm_pictures
from flamingo_jax.few_shot.questions import Questions
from flamingo_jax.few_shot.source import FewShot, game
from flamingo_jax.inputs.rows import Paired
from flamingo_jax.training import config as training

BRIDGE = 'experiments/smollm_bridge'
SCENES = dict(frames=5, features='runs/features_scenes', validation_split='validation')
SCENES |= dict(games=dict(question=game(Questions)))


def get_config(stage: str = '') -> ConfigDict:
    """The stages are 'contrast', which makes the resampler, and ''."""
    stages = {'contrast': contrast, '': answers}
    if stage not in stages:
        raise ValueError(f"The stages are 'contrast' and '', and not {stage!r}.")
    c = smollm_pictures.get_config(stage)
    del c.datasets.classes
    stages[stage](c)
    return c


def contrast(c: ConfigDict) -> None:
    """The bridge's resampler learns places and numbers, and is reminded of names."""
    c.vision = c.resampler = BRIDGE
    del c.datasets.names
    c.datasets.known.batch_size = 24
    c.datasets.scenes = training.dataset(FewShot, row=Paired, shots=1, length=16, images=1, batch_size=96, **SCENES)
    c.steps, c.optimizer.learning_rate, c.optimizer.time_factor = 900, 2e-3, 100.0


def answers(c: ConfigDict) -> None:
    """Four scenes a row, each with a question, and ten single drawings a row."""
    c.start, c.resampler = BRIDGE, 'runs/scenes_resampler'
    del c.datasets.captions, c.datasets.games
    c.datasets.known.batch_size = 2
    c.datasets.scenes = training.dataset(FewShot, shots=4, length=64, targets=16, images=4, batch_size=14, **SCENES)
    c.steps = 200
