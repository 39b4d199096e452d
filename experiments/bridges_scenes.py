"""Bridges side by side on scenes: gated cross-attention and LLaVA's prefix, each with and without tiles.

    python -m data.picture_scenes.build --config=CONFIG --pictures=DATA/picture_dictionary/artists/1.0.0 --out=DATA
    python -m flamingo_jax.features --data=DATA/picture_scenes/CONFIG/1.1.0 --vision=experiments/smollm_bridge \
        --out=runs/features_scenes
    python -m flamingo_jax.train --config=experiments/bridges_scenes.py:BRIDGE --workdir=runs/BRIDGE \
        --config.datasets.questions.path=DATA/picture_scenes/CONFIG/1.1.0 \
        --config.datasets.described.path=DATA/picture_scenes/CONFIG/1.1.0
    python -m flamingo_jax.evaluate --config=experiments/evaluate/picture_scenes.py --checkpoint=runs/BRIDGE \
        --workdir=DIR --config.data=DATA/picture_scenes/CONFIG/1.1.0 --config.features=runs/features_scenes

BRIDGE is `paper` or `llava` of experiments/bridges.py, and CONFIG `full`; or `paper_tiles` or `llava_tiles`, CONFIG
`tiled`, and in the last command `--config.frames=5`. With tiles, a scene is its whole and its four quarters, as in
LLaVA 1.6 (Liu et al. 2024): 125 tokens of text in LLaVA's prefix, one in the paper's.
"""

from ml_collections import ConfigDict

from experiments import bridges
from flamingo_jax.few_shot.kinds import asked
from flamingo_jax.few_shot.names import Names
from flamingo_jax.few_shot.questions import Questions
from flamingo_jax.few_shot.source import FewShot, game
from flamingo_jax.training import config as training

FRAMES = {'paper': 1, 'llava': 1, 'paper_tiles': 5, 'llava_tiles': 5}


def get_config(bridge: str = 'paper_tiles') -> ConfigDict:
    """Scenes with a question, and scenes with their description. ValueError: the bridge is not known."""
    if bridge not in FRAMES:
        raise ValueError(f'The bridges are {", ".join(FRAMES)}, and not {bridge!r}.')
    name, frames = bridge.removesuffix('_tiles'), FRAMES[bridge]
    c = bridges.get_config(name)
    c.vision, c.model.tiles = 'experiments/smollm_bridge', frames
    tokens = frames * bridges.BRIDGES[name][0] if name == 'llava' else 1
    row = dict(shots=1, images=1, length=tokens + 39, features='runs/features_scenes', frames=frames, batch_size=32)
    described = game(Names, prompt=asked('what is where?'))
    c.datasets = ConfigDict(
        dict(
            questions=training.dataset(FewShot, games=dict(question=game(Questions)), **row),
            described=training.dataset(FewShot, games=dict(describe=described), **row),
        )
    )
    return c
