"""Small images with few things in them, by Pillow and the font that it brings."""

import math
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

SIZE = 96  # Height and width in pixels.
SHARPER = 2  # Drawn so many times as large, and then made smaller: smooth edges.
COLOURS = dict(red=(214, 48, 49), green=(32, 148, 72), blue=(36, 92, 196), yellow=(240, 190, 20), purple=(140, 60, 170))
SHAPES = ('circle', 'square', 'triangle', 'star', 'cross')
SIZES = dict(small=0.09, large=0.16)  # Radius, as a share of the image.
RED = (220, 20, 20)


class Picture:
    """A white image to draw on. Places are shares of its width and height."""

    def __init__(self):
        self._image = PIL.Image.new('RGB', (SIZE * SHARPER,) * 2, 'white')
        self._draw = PIL.ImageDraw.Draw(self._image)

    def text(self, text: str, at: tuple[float, float], height: float, colour: tuple[int, int, int] = (20, 20, 20)):
        """A text with its middle at a place; returns its box (left, top, right, bottom) in shares."""
        font, (x, y) = PIL.ImageFont.load_default(self._scaled(height)), map(self._scaled, at)
        self._draw.text((x, y), text, colour, font, anchor='mm')
        return tuple(side / self._image.width for side in self._draw.textbbox((x, y), text, font, anchor='mm'))

    def box(self, box: Sequence[float], margin: float):
        """A red frame around a box."""
        left, top, right, bottom = box
        sides = left - margin, top - margin, right + margin, bottom + margin
        self._draw.rectangle([self._scaled(side) for side in sides], outline=RED, width=self._scaled(0.02))

    def shape(self, name: str, at: tuple[float, float], radius: float, colour: tuple[int, int, int], turn: float = 0.0):
        """One of SHAPES; `turn` is in radians. A circle has no corners to turn."""
        x, y = at
        if name == 'circle':
            sides = x - radius, y - radius, x + radius, y + radius
            self._draw.ellipse([self._scaled(side) for side in sides], colour)
            return
        corners = [
            (x + radius * r * math.sin(turn + a), y - radius * r * math.cos(turn + a)) for r, a in _corners(name)
        ]
        self._draw.polygon([(self._scaled(a), self._scaled(b)) for a, b in corners], colour)

    def clock(self, hour: int, at: tuple[float, float], radius: float):
        """A clock with one hand, at an hour of 0 to 11, and a longer mark at the top."""
        x, y = at
        sides = x - radius, y - radius, x + radius, y + radius
        self._draw.ellipse([self._scaled(side) for side in sides], 'white', (20, 20, 20), self._scaled(0.015))
        for mark in range(12):
            self._hand(at, mark, radius * (0.7 if mark == 0 else 0.85), radius, 0.015)
        self._hand(at, hour, 0.0, radius * 0.62, 0.03)

    def _hand(self, at: tuple[float, float], hour: int, begin: float, end: float, width: float):
        angle = hour * math.pi / 6
        ends = [(at[0] + r * math.sin(angle), at[1] - r * math.cos(angle)) for r in (begin, end)]
        self._draw.line([(self._scaled(a), self._scaled(b)) for a, b in ends], (20, 20, 20), self._scaled(width))

    def _scaled(self, share: float) -> int:
        return round(share * self._image.width)

    @property
    def image(self) -> PIL.Image.Image:
        """The finished image, SIZE x SIZE."""
        return self._image.resize((SIZE, SIZE), PIL.Image.Resampling.BOX)


def jittered(rng: np.random.Generator, at: tuple[float, float], by: float) -> tuple[float, float]:
    """A place near another, at most `by` away in x and in y."""
    x, y = rng.uniform(-by, by, 2)
    return at[0] + float(x), at[1] + float(y)


def _corners(name: str) -> list[tuple[float, float]]:
    """Radius and angle of each corner."""
    if name == 'square':
        return [(1.1, math.pi / 4 + i * math.pi / 2) for i in range(4)]
    if name == 'triangle':
        return [(1.2, i * 2 * math.pi / 3) for i in range(3)]
    if name == 'star':
        return [(1.25 if i % 2 == 0 else 0.5, i * math.pi / 5) for i in range(10)]
    # A cross: of each arm the two outer corners, then the inner one.
    return [(r, i * math.pi / 2 + a) for i in range(4) for r, a in ((1.15, -0.32), (1.15, 0.32), (0.51, math.pi / 4))]
