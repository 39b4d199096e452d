"""The published model learns the names of one's own images, and still learns new words from its prompt.

    python -m data.own_images.build --folder=FOLDER --out=DATA
    python -m flamingo_jax.features --data=DATA/own_images/full/1.0.0 --vision=experiments/picture_dictionary \
        --out=runs/own_features --splits=train --views=4
    python -m flamingo_jax.train --config=experiments/own_images.py --workdir=runs/own_images \
        --config.datasets.own.path=DATA/own_images/full/1.0.0
    python -m flamingo_jax.evaluate --config=experiments/evaluate/own_images.py --checkpoint=runs/own_images \
        --workdir=DIR --config.data=DATA/own_images/full/1.0.0

Then ask it, or open it on a page:

    python -m flamingo_jax.generate --checkpoint=runs/own_images --image=IMAGE.jpg
    python -m flamingo_jax.demo --checkpoint=runs/own_images

The evaluation with `--checkpoint=experiments/picture_dictionary` asks the model as it was before. It needs at least
four images to learn from; with fewer: `--config.tasks.names.shots=0,2`. Training needs at least two things;
docs/experiments.md has an example with its figures. Half of the images are shown mirrored: if left and right tell
your things apart, train with `--config.datasets.own.flip=False`.
"""

from ml_collections import ConfigDict

from experiments import quickstart
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.tasks.words import Words
from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """Names of the images, and of the sample's drawings and their new words, so that it forgets nothing."""
    c = training.base()
    c.start = 'experiments/picture_dictionary'
    c.steps, c.checkpoint_every = 300, 100
    few = dict(shots=4, length=44, images=4, batch_size=16)
    c.datasets.own = training.dataset(
        FewShot, games=dict(name=game(Names, repeats=0.5)), features='runs/own_features', **few
    )
    games = dict(bind=game(Words, share=0.6), name=game(Names, share=0.4))
    c.datasets.before = training.dataset(FewShot, games=games, path=quickstart.SAMPLE, styles=quickstart.STYLES, **few)
    c.noise.feature_dropout = 0.1
    c.optimizer = quickstart.get_config().optimizer
    c.optimizer.update(learning_rate=5e-4, warmup_steps=20)
    return c
