"""Whether a picture is kept, and how it looks: its perceptual hash."""

import functools
import io
import warnings
from typing import NamedTuple

import numpy as np
import PIL.Image
from jaxtyping import Float, UInt8

from flamingo_jax.building.rules import DEFAULT, PageRules


class Look(NamedTuple):
    """A picture that can be read."""

    width: int
    height: int
    hash: int  # 64 bits; pictures that look alike differ in few.


class LookError(ValueError):
    """A picture that is not kept. Has the rule's name, and what was measured."""

    def __init__(self, rule: str, value: float | None = None, excerpt: str = ''):
        super().__init__(rule)
        self.rule, self.value, self.excerpt = rule, value, excerpt


def look_at(data: bytes, rules: PageRules = DEFAULT) -> Look:
    """Reads an encoded picture. Its size is checked before it is decoded.

    Raises:
      LookError: it is not to be kept; `rule` says why.
    """
    if not data:
        raise LookError('picture_empty', 0)
    if rules.picture_max_bytes and len(data) > rules.picture_max_bytes:
        raise LookError('picture_max_bytes', len(data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # PIL's own warning of bombs; the size is checked below.
            image = PIL.Image.open(io.BytesIO(data), formats=['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'ICO'])
    except PIL.Image.DecompressionBombError as error:
        raise LookError('picture_max_pixels', None, str(error)) from error
    except Exception as error:  # Each of PIL's decoders has its own errors for damaged data.
        raise LookError(_what_it_is(data), None, repr(data[:40])) from error
    width, height = image.size
    if image.format not in rules.picture_formats:
        raise LookError('picture_formats', None, str(image.format))
    if min(width, height) < max(rules.picture_min_side, 1):
        raise LookError('picture_min_side', min(width, height))
    if rules.picture_max_side and max(width, height) > rules.picture_max_side:
        raise LookError('picture_max_side', max(width, height))
    if rules.picture_max_pixels and width * height > rules.picture_max_pixels:
        raise LookError('picture_max_pixels', width * height)
    if rules.picture_aspect and max(width, height) > rules.picture_aspect * min(width, height):
        raise LookError('picture_aspect', max(width, height) / min(width, height))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            image.draft('RGB', (128, 128))  # A JPEG is decoded at reduced scale.
            image.load()
            if image.has_transparency_data:
                image = image.convert('RGBA')
                image = PIL.Image.alpha_composite(PIL.Image.new('RGBA', image.size, 'white'), image)
            image = image.convert('RGB')
    except Exception as error:  # As above.
        raise LookError('picture_damaged', None, f'{type(error).__name__}: {error}') from error
    spread = max(high - low for low, high in image.getextrema())
    if rules.picture_one_colour and spread <= rules.picture_one_colour:
        raise LookError('picture_one_colour', spread)
    return Look(
        width, height, perceptual_hash(np.asarray(image.convert('L').resize((32, 32), PIL.Image.Resampling.BOX)))
    )


def perceptual_hash(grey: UInt8[np.ndarray, '32 32']) -> int:
    """The 64 bits of pHash: which of the lowest frequencies of a cosine transform are above their median."""
    cosines = _cosines()
    low = (cosines @ grey.astype(np.float64) @ cosines.T).ravel()
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), 'big')  # The first is the brightness.


@functools.cache
def _cosines() -> Float[np.ndarray, '8 32']:
    return np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(32) + 1) / 64)


def distance(a: np.ndarray, b: int) -> np.ndarray:
    """The number of bits in which hashes differ from one. a: uint64 [n]."""
    return np.bitwise_count(a ^ np.uint64(b))


def _what_it_is(data: bytes) -> str:
    """The rule's name for what is not a picture."""
    begin = data[:1000].lstrip().lower()
    if begin.startswith((b'<!doctype', b'<html', b'<head', b'<body')):
        return 'picture_is_html'
    if begin.startswith((b'<svg', b'<?xml')) or b'<svg' in begin:
        return 'picture_formats'
    return 'picture_unreadable'
