"""Begins a Flamingo: each picture by itself is to mean, to the frozen language model, what its English name means.

    python -m flamingo_jax.train --config=experiments/picture_meanings.py --workdir=runs/picture_meanings \
        --config.datasets.pictures.path=DATA/picture_dictionary/full/1.0.0
    python -m flamingo_jax.convert run --source=runs/picture_meanings --out=runs/picture_meanings_bundle

It cannot answer yet. What goes on from it finds gates that are open before every block, and a language model that translates
what it sees: trained on answers alone, a picture is told to the last block only, as the English word to be written.
Data, trunk and features are those of experiments/picture_words.py, the language model that of experiments/lm_names.py; one of a
third of its steps lies in the repository (--config.lm=experiments/lm_names).
"""

from ml_collections import ConfigDict

from experiments import picture_words
from flamingo_jax.few_shot.names import Names
from flamingo_jax.few_shot.sequences import FewShotConfig, game
from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """The model of picture_words with its gates open, one picture and one name a row."""
    c = picture_words.get_config()
    c.steps, c.checkpoint_every = 1000, 200
    c.lm = 'runs/lm_names_bundle'
    c.model.xattn.initial_alpha = 1.0
    few_shot = FewShotConfig(shots=1, games=dict(name=game(Names)))
    c.datasets.pictures = training.dataset(
        few_shot, features='runs/features', styles=picture_words.STYLES, length=12, images=1, batch_size=256, align=True
    )
    c.optimizer.update(learning_rate=2e-3, warmup_steps=30, final_fraction=0.05)
    return c
