"""An image as its tiles and as a whole, as Idefics 3 and SmolVLM are shown it.

The longer side is resized to `longest` pixels, and then both sides to multiples of a tile's. The tiles stand in the
text row by row, and after them the whole image on one tile:

    <fake><row_1_col_1>...<fake><row_1_col_2>...        <fake> is <fake_token_around_image>, ... an image's tag
    <fake><row_2_col_1>...<fake><row_2_col_2>...

    <fake><global-img>...<fake>

An image that is not split is the last line alone. Pixels and texts are those of transformers' processor with PIL.
"""

import dataclasses
import functools
import math
import threading
from collections.abc import Hashable

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from flamingo_jax.inputs.images import Unread, rgb

LANCZOS = PIL.Image.Resampling.LANCZOS
FAKE, WHOLE = '<fake_token_around_image>', '<global-img>'


@dataclasses.dataclass(frozen=True)
class Splitting:
    """How a model's images become tiles.

    side: height and width of a tile, in pixels.
    longest: of the longer side of an image, before it is cut into tiles.
    split: False shows the whole image alone.
    """

    side: int
    longest: int
    split: bool = True

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height with the longer side at `longest`; the shorter side is even."""
        if width < height:
            longer, shorter = self.resized(height, width)
            return shorter, longer
        shorter = int(self.longest / (width / height))
        return self.longest, max(1, shorter + shorter % 2)

    def cut(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in whole tiles, of an image that is `resized`."""
        if width < height:
            down = math.ceil(height / self.side) * self.side
            return math.ceil(int(down * (width / height)) / self.side) * self.side, down
        across = math.ceil(width / self.side) * self.side
        return across, math.ceil(int(across / (width / height)) / self.side) * self.side

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of tiles of an image of so many pixels; (0, 0) if it is shown as a whole alone."""
        across, down = self.cut(*self.resized(width, height))
        alone = not self.split or max(across, down) <= self.side
        return (0, 0) if alone else (down // self.side, across // self.side)

    def tiles(self, image: PIL.Image.Image) -> UInt8[np.ndarray, 'n side side 3']:
        """The tiles of an RGB image, row by row, and at last the whole."""
        (rows, columns), side = self.grid(*image.size), self.side
        image = image.resize(self.resized(*image.size), LANCZOS)
        if rows:
            image = image.resize((columns * side, rows * side), LANCZOS)
        pixels, whole = np.asarray(image), np.asarray(image.resize((side, side), LANCZOS))[None]
        if not rows:
            return whole
        parts = pixels.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
        return np.concatenate([parts.reshape(-1, side, side, 3), whole])


def before_tags(rows: int, columns: int) -> list[str]:
    """What stands in the text before the tag of each tile, and at last of the whole. After that stands FAKE."""
    ends = {(row, 0): '\n' for row in range(1, rows)}
    tiles = [
        f'{ends.get((row, column), "")}{FAKE}<row_{row + 1}_col_{column + 1}>'
        for row in range(rows)
        for column in range(columns)
    ]
    return [*tiles, ('\n\n' if rows else '') + FAKE + WHOLE]


class Split:
    """One image of a prompt. Its tiles are computed when the first of them is read, for all threads."""

    def __init__(self, image: PIL.Image.Image | np.ndarray | bytes, splitting: Splitting):
        """image: a still, as in a prompt. ImageError if it cannot be read."""
        self._image, self._splitting = rgb(image), splitting
        self._lock, self._tiles = threading.Lock(), None
        self.grid = splitting.grid(*self._image.size)

    def read(self, i: int) -> UInt8[np.ndarray, 'side side 3']:
        """Tile i; the last one is the whole."""
        with self._lock:
            if self._tiles is None:
                self._tiles = self._splitting.tiles(self._image)
        return self._tiles[i]

    def unread(self, identity: Hashable) -> list[Unread]:
        """The tiles and the whole, as images of a prompt. identity: of the image."""
        number = self.grid[0] * self.grid[1] + 1
        return [Unread((self._splitting, i, identity), functools.partial(self.read, i)) for i in range(number)]
