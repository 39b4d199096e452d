"""Other views of a picture: what frozen features, computed once, can be trained on without learning four drawings by heart.

A view is turned, moved, brought nearer or further off, recoloured; one in six loses its colour, one in six is a sketch of
its outlines, half of them stand on another background than white.
"""

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageFilter
import PIL.ImageOps
from jaxtyping import UInt8

LARGEST_TURN = 20  # Degrees.
SIZES = (0.6, 1.1)  # Of the picture's side.
LARGEST_SHIFT = 0.1
GREY, SKETCH, BACKGROUND = 1 / 6, 1 / 6, 1 / 2


def view(frames: UInt8[np.ndarray, 't size size 3'], rng: np.random.Generator) -> UInt8[np.ndarray, 't size size 3']:
    """One random view, the same of every frame of a video."""
    side = frames.shape[1]
    turn, size = rng.uniform(-LARGEST_TURN, LARGEST_TURN), rng.uniform(*SIZES)
    shift = tuple(int(x) for x in rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, 2) * side)
    colours = rng.uniform((0.6, 0.7, 0.4), (1.3, 1.3, 1.6))
    look = rng.random()
    background = tuple(int(x) for x in rng.integers(128, 256, 3)) if rng.random() < BACKGROUND else (255, 255, 255)

    def one(frame: np.ndarray) -> np.ndarray:
        image = PIL.Image.fromarray(frame)
        for enhance, factor in zip(
            (PIL.ImageEnhance.Brightness, PIL.ImageEnhance.Contrast, PIL.ImageEnhance.Color), colours, strict=True
        ):
            image = enhance(image).enhance(float(factor))
        if look < SKETCH:
            image = PIL.ImageOps.invert(image.convert('L').filter(PIL.ImageFilter.FIND_EDGES)).convert('RGB')
        elif look < SKETCH + GREY:
            image = image.convert('L').convert('RGB')
        # White is what pictures stand on: where it was, the background shows.
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
