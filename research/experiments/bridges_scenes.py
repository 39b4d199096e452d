"""Bridges side by side on scenes: gated cross-attention and LLaVA's prefix, each with and without tiles.

    python -m data.picture_scenes.build --config=CONFIG --images=DATA/picture_dictionary/artists/1.0.0 --out=DATA
    python -m flamingo_jax.features --data=DATA/picture_scenes/CONFIG/1.1.0 --vision=experiments/smollm_bridge \
        --out=runs/features_CONFIG
    python -m flamingo_jax.train --config=research/experiments/bridges_scenes.py:BRIDGE --workdir=runs/BRIDGE \
        --config.datasets.scenes.path=DATA/picture_scenes/CONFIG/1.1.0 \
        --config.datasets.scenes.features=runs/features_CONFIG
    python -m flamingo_jax.evaluate --config=experiments/evaluate/picture_scenes.py:FORM --checkpoint=runs/BRIDGE \
        --workdir=DIR --config.data=DATA/picture_scenes/CONFIG/1.1.0 --config.features=runs/features_CONFIG

BRIDGE is `paper` or `llava` of bridges.py, with CONFIG `full` and FORM `whole`; or `paper_tiles` or `llava_tiles`, with
`quarters` for both. With tiles, a scene is its four quarters and its whole (LLaVA 1.6, Liu et al.
2024), each with its place in the text: 125 tokens of LLaVA's prefix, five of the paper's.
"""

from ml_collections import ConfigDict

from flamingo_jax import commands
from flamingo_jax.tasks.questions import Questions
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.training import config as training
from research.experiments import bridges

# The bridge of research/experiments/bridges.py, and whether scenes have their tiles.
BRIDGES = dict(paper=('paper', False), llava=('llava', False), paper_tiles=('paper', True), llava_tiles=('llava', True))


def get_config(bridge: str = 'paper_tiles') -> ConfigDict:
    """Scenes, each with two questions. ValueError: the bridge is not known."""
    name, tiled = commands.part(BRIDGES, bridge)
    c = bridges.get_config(name)
    c.vision = 'experiments/smollm_bridge'
    images, text = (5, 58) if tiled else (1, 40)
    row = dict(shots=1, tiles=images, images=images, length=images * bridges.BRIDGES[name][0] + text)
    asked = game(Questions, each=2, tiled=tiled)
    c.datasets = ConfigDict(dict(scenes=training.dataset(FewShot, games=dict(ask=asked), **row, batch_size=32)))
    return c
