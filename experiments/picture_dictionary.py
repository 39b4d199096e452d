"""Names in 36 languages, kinds, questions about one picture and about two: goes on from experiments/picture_meanings.py.

    python -m flamingo_jax.train --config=experiments/picture_dictionary.py --workdir=runs/picture_dictionary \
        --config.datasets.pictures.path=DATA/picture_dictionary/full/1.0.0
    python -m flamingo_jax.convert run --source=runs/picture_dictionary --packaged_trunk \
        --card=experiments/picture_dictionary.md --out=experiments/picture_dictionary

Nine of ten new words are for blends of two things: the bridge knows each thing by its name by now, and what has none teaches it
to look. Half of the names are English: where all languages came alike, a run forgot what pictures are called.
"""

from ml_collections import ConfigDict

from experiments import quickstart
from experiments.picture_words import KINDS, STYLES
from flamingo_jax.inputs.few_shot import FewShotConfig
from flamingo_jax.training import config as training

LANGUAGES = tuple(
    'en de fr es it ru ja ko am bg ca cs el eu fi ga gd gl gu hr hu hy id is ka lv nb nl pl pt sk sl sq sv uk zh'.split()
)


def get_config() -> ConfigDict:
    """All that one picture, or two, may be asked."""
    c = training.base()
    c.start = 'runs/picture_meanings_bundle'
    c.steps, c.checkpoint_every = 2400, 200
    few_shot = FewShotConfig(
        shots=8,
        mixture=dict(bind=0.35, name=0.4, kind=0.05, yes_or_no=0.08, which=0.12),
        blend=0.9,
        languages=('en',) * len(LANGUAGES) + LANGUAGES,  # English as often as all together.
        repeats=0.5,
        kinds=KINDS,
    )
    c.datasets.pictures = training.dataset(
        few_shot, features='runs/features', styles=STYLES, length=88, images=8, batch_size=32
    )
    c.noise.feature_dropout = 0.1
    c.optimizer = quickstart.get_config().optimizer
    c.optimizer.learning_rate = 1e-3
    return c
