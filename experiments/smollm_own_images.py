"""The published bridge on SmolLM2 learns the names of one's own images, and still learns new words from its prompt.

    python -m data.own_images.build --folder=FOLDER --out=DATA
    python -m flamingo_jax.features --data=DATA/own_images/full/1.0.0 --vision=experiments/smollm_bridge \
        --out=runs/own_features --splits=train --views=4
    python -m flamingo_jax.train --config=experiments/smollm_own_images.py --workdir=runs/own_images \
        --config.lm=LMS/smollm2 --config.datasets.own.path=DATA/own_images/full/1.0.0
    python -m flamingo_jax.evaluate --config=experiments/evaluate/own_images.py --checkpoint=runs/own_images \
        --workdir=DIR --config.data=DATA/own_images/full/1.0.0 --config.tasks.names.prompt=' name:'

The last command with `--checkpoint=experiments/smollm_bridge --lm=LMS/smollm2` asks the model as it was before.
docs/experiments.md has an example with its figures. Half of the images are shown mirrored: if left and right tell
your things apart, train with `--config.datasets.own.flip=False`. own_images.py does the same with the small model,
which needs no download.
"""

from ml_collections import ConfigDict

from experiments import quickstart, smollm_pictures
from flamingo_jax.tasks.source import FewShot
from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """Names of the images, and the games of before on the embedded sample's drawings, so that it forgets nothing."""
    c = smollm_pictures.base()
    smollm_pictures.go_on_from(c)
    # The window holds a question and a name of about 25 tokens.
    own = smollm_pictures.SINGLE | dict(features='runs/own_features', window=(40, 1))
    c.datasets.own = training.dataset(FewShot, batch_size=4, **own)
    drawings = dict(path=quickstart.SAMPLE, styles=quickstart.STYLES)
    c.datasets.games = training.dataset(FewShot, batch_size=3, **smollm_pictures.GAMES, **drawings)
    c.datasets.games.games.name.similar = 0.0  # Similar ones are found by features. The sample is read as pixels.
    c.steps = c.checkpoint_every = 60
    c.optimizer.warmup_steps = 10
    return c
