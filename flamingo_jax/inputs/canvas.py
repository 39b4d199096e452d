"""An image on a canvas of up to four square tiles, as Llama 3.2 Vision takes it.

The canvas is the one on which the image is enlarged least; if it must shrink on all, the one on which it shrinks least;
of several, the smallest. The image is no larger than its canvas needs, lies at the top left, and the rest is black.
Pixels and canvases are those of transformers' processor with PIL.
"""

import math

import PIL.Image

from flamingo_jax.model.vision.mllama_vit import ARRANGEMENTS, TILES

BILINEAR = PIL.Image.Resampling.BILINEAR


def arrangement(width: int, height: int, size: int, tiles: int = TILES) -> tuple[int, int]:
    """Rows and columns of at most so many tiles for an image of so many pixels. size: height and width of a tile."""
    possible = [(r, c) for r, c in ARRANGEMENTS if r * c <= tiles]
    scales = {(r, c): min(size * r / height, size * c / width) for r, c in possible}
    enlarging = [scale for scale in scales.values() if scale >= 1]
    chosen = min(enlarging) if enlarging else max(scales.values())
    fitting = [arranged for arranged, scale in scales.items() if scale == chosen]
    return min(fitting, key=math.prod)


def fitted(width: int, height: int, canvas: tuple[int, int], size: int) -> tuple[int, int]:
    """Width and height of an image on a canvas of such a width and height.

    A small image is enlarged until one side is that of a tile, and no further.
    """
    across, down = min(max(width, size), canvas[0]), min(max(height, size), canvas[1])
    if across / width < down / height:
        return across, min(math.floor(height * (across / width)) or 1, down)
    return min(math.floor(width * (down / height)) or 1, across), down


def of(image: PIL.Image.Image, size: int, tiles: int = TILES) -> PIL.Image.Image:
    """An RGB image on its canvas of at most so many tiles. size: height and width of a tile, in pixels."""
    rows, columns = arrangement(*image.size, size, tiles)
    canvas = PIL.Image.new('RGB', (columns * size, rows * size))
    canvas.paste(image.resize(fitted(*image.size, canvas.size, size), BILINEAR))
    return canvas
