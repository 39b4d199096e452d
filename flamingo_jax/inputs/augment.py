"""Augmentation of images in training: the paper's flip and colour jitter, and random views of an image.

Views are for frozen features, which are computed once: they keep a model from memorising a small set of drawings.
A view is rotated, shifted, scaled and recoloured. One in six is grey, one in six is a sketch of the outlines, and half
of them have a background that is not white.
"""

import math
from collections.abc import Iterable

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageFilter
import PIL.ImageOps
from jaxtyping import UInt8

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import Frames

LARGEST_TURN = 20  # Degrees.
SIZES = (0.6, 1.1)  # Of the image's side.
LARGEST_SHIFT = 0.1
GREY, SKETCH, BACKGROUND = 1 / 6, 1 / 6, 1 / 2
# Factors of brightness, contrast and saturation, for a view and for `recolour`. The paper does not give its own.
ENHANCERS = (PIL.ImageEnhance.Brightness, PIL.ImageEnhance.Contrast, PIL.ImageEnhance.Color)
VIEW_COLOURS = ((0.6, 0.7, 0.4), (1.3, 1.3, 1.6))
COLOURS = ((0.8, 0.8, 0.8), (1.2, 1.2, 1.2))


def mirror(frames: Frames) -> Frames:
    """Left-right flip of pixels [t height width 3], or of features [t s d_v] on their square grid.

    What a classifier says of the image may stand behind the grid, as one more place. It stays.
    """
    if frames.ndim == 4:
        return frames[:, :, ::-1]
    t, s, d_v = frames.shape
    side = math.isqrt(s)
    if s - side * side > 1:
        raise UserError(f'{s} features do not form a square grid, so they cannot be mirrored.')
    grid, behind = np.split(frames, [side * side], axis=1)
    grid = grid.reshape(t, side, side, d_v)[:, :, ::-1].reshape(t, side * side, d_v)
    return np.concatenate([grid, behind], axis=1)


def draw_colours(rng: np.random.Generator) -> tuple[float, ...]:
    """Factors for `recolour`."""
    return tuple(float(x) for x in rng.uniform(*COLOURS))


def recolour(
    frames: UInt8[np.ndarray, 't size size 3'], factors: tuple[float, ...]
) -> UInt8[np.ndarray, 't size size 3']:
    """Multiplies brightness, contrast and saturation; every frame of a video gets the same factors."""
    return np.stack([np.asarray(_enhanced(PIL.Image.fromarray(frame), factors)) for frame in frames])


def _enhanced(image: PIL.Image.Image, factors: Iterable[float]) -> PIL.Image.Image:
    for enhance, factor in zip(ENHANCERS, factors, strict=True):
        image = enhance(image).enhance(float(factor))
    return image


def view(frames: UInt8[np.ndarray, 't size size 3'], rng: np.random.Generator) -> UInt8[np.ndarray, 't size size 3']:
    """One random view; every frame of a video gets the same one."""
    side = frames.shape[1]
    turn, size = rng.uniform(-LARGEST_TURN, LARGEST_TURN), rng.uniform(*SIZES)
    shift = tuple(int(x) for x in rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, 2) * side)
    colours = rng.uniform(*VIEW_COLOURS)
    look = rng.random()
    background = tuple(int(x) for x in rng.integers(128, 256, 3)) if rng.random() < BACKGROUND else (255, 255, 255)

    def one(frame: np.ndarray) -> np.ndarray:
        image = _enhanced(PIL.Image.fromarray(frame), colours)
        if look < SKETCH:
            image = PIL.ImageOps.invert(image.convert('L').filter(PIL.ImageFilter.FIND_EDGES)).convert('RGB')
        elif look < SKETCH + GREY:
            image = image.convert('L').convert('RGB')
        # Images stand on white. The new background replaces the white.
        mask = PIL.Image.fromarray((frame.min(axis=-1) < 250).astype(np.uint8) * 255)
        small = (max(1, round(side * size)),) * 2
        image, mask = (
            part.resize(small, PIL.Image.Resampling.BILINEAR).rotate(turn, PIL.Image.Resampling.BILINEAR, fillcolor=0)
            for part in (image, mask)
        )
        canvas = PIL.Image.new('RGB', (side, side), background)
        corner = tuple((side - s) // 2 + d for s, d in zip(small, shift, strict=True))
        canvas.paste(image, corner, mask)
        return np.asarray(canvas)

    return np.stack([one(frame) for frame in frames])
