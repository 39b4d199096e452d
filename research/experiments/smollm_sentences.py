"""The published bridge on SmolLM2 learns sentences about images: definitions beside icons, descriptions of portraits.

    data/picture_dictionary/fetch.sh --icons RAW
    python -m research.data.icons.build --raw=RAW --dictionary=DATA/picture_dictionary/artists/1.0.0 --out=DATA
    research/data/wesnoth/fetch.sh RAW
    python -m research.data.wesnoth.build --raw=RAW --out=DATA --notranslations
    for SET in icons/pairs wesnoth/english; do
      python -m flamingo_jax.features --data=DATA/$SET/1.0.0 --vision=experiments/smollm_bridge --out=runs/$SET
    done
    python -m flamingo_jax.train --config=research/experiments/smollm_sentences.py --workdir=runs/sentences \
        --config.lm=LMS/smollm2 --config.datasets.known.path=ARTISTS --config.datasets.games.path=ARTISTS
    python -m flamingo_jax.convert run --source=runs/sentences --out=SENTENCES --packaged_trunk --without_lm
    python -m research.analyses.descriptions --lm=LMS/smollm2 --data=DATA/icons/pairs/1.0.0 \
        experiments/smollm_bridge SENTENCES

ARTISTS is DATA/picture_dictionary/artists/1.0.0; `experiments/smollm_pictures.py` has the commands that make it and its
features. Names and few-shot games go on beside the sentences, lest they be forgotten.
"""

from ml_collections import ConfigDict

from experiments import smollm_pictures
from experiments.smollm_pictures import ASKED, BY_ALL, DRAWINGS, GAMES
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.tasks.source import FewShot
from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """Rows of four icons or so, and of a portrait; single images that are asked about, and games."""
    c = smollm_pictures.base()
    smollm_pictures.without_noise(c)
    held_out = dict(from_start=True, validation_split='validation')
    icons = dict(path='DATA/icons/pairs/1.0.0', features='runs/icons/pairs', **held_out)
    c.datasets.icons = training.dataset(
        Documents, batch_size=6, length=128, images=8, documents=16, window=(40, 1), **icons
    )
    portraits = dict(path='DATA/wesnoth/english/1.0.0', features='runs/wesnoth/english', **held_out)
    c.datasets.portraits = training.dataset(Documents, batch_size=2, length=128, images=1, loss_weight=0.5, **portraits)
    c.datasets.known = training.dataset(FewShot, batch_size=4, **ASKED, **BY_ALL)
    c.datasets.games = training.dataset(FewShot, batch_size=2, **GAMES, **DRAWINGS)
    return c
