"""Few-shot sequences, built on the fly from a picture set: what a Flamingo learns in-context learning from.

They draw anew for every sequence, so that only the prompt can tell the task. Which games they are of, and how often, is said by
the config:

    FewShotConfig(shots=8, games=dict(bind=game(Words, share=0.6, classes=(2, 5)), name=game(Names, share=0.4)))
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from flamingo_jax.few_shot.game import Game
from flamingo_jax.inputs.interleave import Chunk
from flamingo_jax.inputs.sources.picture_set import PictureSet


def game(of: type[Game], share: float = 1.0, **fields) -> ConfigDict:
    """A game for `FewShotConfig.games`, as data: its class, its share of the sequences, the fields of its `Sequences`.

    Raises TypeError for a field that the game does not have.
    """
    return ConfigDict(dict(game=of, share=share, **dataclasses.asdict(of.Sequences(**fields))))


@dataclasses.dataclass(frozen=True)
class FewShotConfig:
    """What sequences are drawn."""

    shots: int = 10  # Pictures (or text keys) a sequence.
    games: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # Name -> game(...).


class FewShot:
    """A random map from nothing to documents."""

    def __init__(self, pictures: PictureSet, config: FewShotConfig):
        """Raises ValueError if there is no game, or the picture set lacks what one needs."""
        # By name, so that the order in which a config lists them changes nothing.
        self._games, shares = [], []
        for _, fields in sorted(config.games.items()):
            fields = fields.to_dict() if isinstance(fields, ConfigDict) else dict(fields)
            of, share = fields.pop('game'), fields.pop('share')
            one = of.Sequences(**fields)
            if share:
                one.open(pictures, config.shots)
            self._games.append(one)
            shares.append(share)
        if not sum(shares):
            raise ValueError('There is no game to draw sequences of: give few_shot.games one with a share above 0.')
        self._shares = np.array(shares) / sum(shares)

    def __call__(self, rng: np.random.Generator) -> list[Chunk]:
        """One document of `shots` pictures or keys."""
        return self._games[rng.choice(len(self._games), p=self._shares)].draw(rng)
