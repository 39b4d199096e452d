"""Few-shot sequences as a data set, from which a Flamingo learns in-context learning.

Each row is a new random sequence of a game, with images of a prepared image set, so that only the prompt tells the
answer. The config says which games are played, and how often:

    dataset(FewShot, shots=8, games=dict(bind=game(Words, share=0.6, classes=(2, 5)), name=game(Names, share=0.4)), ...)
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.rows import Chunk, Interleaved
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.inputs.sources.source import ENDLESS, Opened, Source
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.tasks.game import Game

SAMPLES = 16  # Documents of each game that are drawn to see whether they fit.


def game(of: type[Game], share: float = 1.0, **fields: Any) -> ConfigDict:
    """A game for `FewShot.games`, as data: its class, its share of the sequences, the fields of its `Sequences`.

    Raises TypeError for a field that the game does not have.
    """
    return ConfigDict(dict(game=of, share=share, **dataclasses.asdict(of.Sequences(**fields))))


@dataclasses.dataclass(frozen=True)
class FewShot(Source):
    """Images of an image set, and the games that are played with them."""

    styles: tuple[str, ...] = ()  # () is all.
    things_of: tuple[str, ...] = ()  # Only things that these styles show; () is all.
    shots: int = 10  # Images (or text keys) per sequence.
    tiles: int = 0  # Frames of the set's images, if a game shows each frame as an image; 0: as many as `frames`.
    games: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # Name -> game(...).
    # Views of each image, itself and random ones (`inputs/augment.py`), if pixels are read. Features have their own.
    views: int = 1
    flip: bool = True  # Mirror images at random. Not for things that left and right tell apart.
    from_start: bool = True  # An answer without its image teaches to guess.

    def open(self, image_format: ImageFormat) -> Opened:
        """Opens the image set; errors as for `ImageSet` and `Drawing`. ValueError for no shots or no batch."""
        for field in ('shots', 'batch_size'):
            if getattr(self, field) < 1:
                raise UserError(f'{field} is {getattr(self, field)}. It must be 1 or more.')
        options = dict(features=self.features, frames=self.tiles or self.frames, views=self.views, flip=self.flip)
        chosen = ImageSet(self.path, self.split, image_format, styles=self.styles, things_of=self.things_of, **options)
        return Drawing(chosen, self.shots, self.games)

    def check(self, opened: 'Drawing', tokenizer: Tokenizer) -> None:
        """ValueError if most documents of a game have no answer within the window: the game would not be learned."""
        if self.row is not Interleaved:
            return
        room = self.length, self.images
        if self.documents > 1:
            room = tuple(map(min, room, self.window))
        for name, documents in opened.samples(SAMPLES).items():
            unanswered = dataclasses.replace(self, from_start=True).unlearnt(documents, tokenizer)
            if unanswered > SAMPLES // 2:
                raise UserError(
                    f'Of {SAMPLES} documents of the game {name!r}, {unanswered} have no answer within {room[0]} tokens '
                    f'and {room[1]} images. Give the data set a larger '
                    f'{"`window`, `length` or `images`" if self.documents > 1 else "`length` or `images`"}.'
                )


class Drawing:
    """Draws random documents, each of one of the games."""

    def __init__(self, images: ImageSet, shots: int, games: Mapping[str, Any]):
        """ValueError if there is no game, a share is below 0, or the image set does not have what a game needs."""
        # Sorted by name, so that their order in the config does not matter. Those with a share of 0 are not played.
        self._games, shares = [], []
        for name, fields in sorted(games.items()):
            fields = fields.to_dict() if isinstance(fields, ConfigDict) else dict(fields)
            of, share = fields.pop('game'), fields.pop('share')
            sequences = of.Sequences(**fields)
            if not 0 <= share < np.inf:
                raise UserError(f'The share of the game {name!r} is {share}. It must be 0 or more.')
            if share:
                sequences.open(images, shots)
                self._games.append((name, sequences))
                shares.append(share)
        if not sum(shares):
            raise UserError(
                'There is no game to draw sequences of. Give `games` at least one game with a share above 0.'
            )
        self._shares = np.array(shares) / sum(shares)

    def __len__(self) -> int:
        return ENDLESS

    def document(self, index: int, rng: np.random.Generator) -> list[Chunk]:
        """One document, drawn by `rng`."""
        _, sequences = self._games[rng.choice(len(self._games), p=self._shares)]
        return sequences.draw(rng)

    def samples(self, number: int) -> dict[str, list[list[Chunk]]]:
        """Some documents of each game that is played, the same at each call."""
        rng = np.random.default_rng(0)
        return {name: [sequences.draw(rng) for _ in range(number)] for name, sequences in self._games}
