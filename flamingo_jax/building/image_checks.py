"""Whether an image is kept, and how it looks: its perceptual hash."""

import functools
import io
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from jaxtyping import Float, UInt8, UInt64

from flamingo_jax.building.rules import DEFAULT, PageRules
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import eight_bits

# How encoded images begin.
BEGINS = (
    (b'\xff\xd8\xff', 'JPEG'),
    (b'\x89PNG\r\n\x1a\n', 'PNG'),
    (b'GIF87a', 'GIF'),
    (b'GIF89a', 'GIF'),
    (b'II*\0', 'TIFF'),
    (b'MM\0*', 'TIFF'),
    (b'\xff\x0a', 'JXL'),
    (b'\0\0\0\x0cJXL \r\n\x87\n', 'JXL'),
)


class Look(NamedTuple):
    """An image that can be read."""

    width: int
    height: int
    hash: bytes  # 256 bits; images that look alike differ in few.


class LookError(UserError):
    """An image that is not kept. Has the rule's name, and what was measured."""

    def __init__(self, rule: str, value: int | float | None = None, excerpt: str = ''):
        super().__init__(rule)
        self.rule, self.value, self.excerpt = rule, value, excerpt


def look_at(data: bytes, rules: PageRules = DEFAULT) -> Look:
    """Reads an encoded image. Its size is checked before it is decoded.

    Raises:
      LookError: it is not to be kept; `rule` says why.
    """
    if not data:
        raise LookError('image_empty', 0)
    if rules.image_max_bytes and len(data) > rules.image_max_bytes:
        raise LookError('image_max_bytes', len(data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # PIL's own warning of bombs; the size is checked below.
            image = PIL.Image.open(io.BytesIO(data), formats=_formats())
    except PIL.Image.DecompressionBombError as error:
        raise LookError('image_max_pixels', None, str(error)) from error
    except Exception as error:  # Each of PIL's decoders has its own errors for damaged data.
        raise LookError(_what_it_is(data), None, repr(data[:40])) from error
    width, height = image.size
    kind = 'JPEG' if image.format == 'MPO' else image.format  # PIL's name of a JPEG with a preview in it.
    if kind not in rules.image_formats:
        raise LookError('image_formats', None, str(kind))
    if min(width, height) < max(rules.image_min_side, 1):
        raise LookError('image_min_side', min(width, height))
    if rules.image_max_side and max(width, height) > rules.image_max_side:
        raise LookError('image_max_side', max(width, height))
    if rules.image_max_pixels and width * height > rules.image_max_pixels:
        raise LookError('image_max_pixels', width * height)
    if rules.image_aspect and max(width, height) > rules.image_aspect * min(width, height):
        raise LookError('image_aspect', max(width, height) / min(width, height))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            image.draft('RGB', (128, 128))  # A JPEG is decoded at reduced scale.
            image.load()
            image = eight_bits(image)
            grey = _small(_on_white(image, 'L'))
            spread = _spread(grey)
            if spread <= rules.image_one_colour:  # Two colours may have one grey.
                spread = _spread(_small(_on_white(image, 'RGB')))
    except Exception as error:  # As above.
        raise LookError('image_damaged', None, f'{type(error).__name__}: {error}') from error
    if rules.image_one_colour and spread <= rules.image_one_colour:
        raise LookError('image_one_colour', spread)
    return Look(width, height, perceptual_hash(np.asarray(grey)))


def _on_white(image: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    """An image in grey ('L') or colour ('RGB'), with white where it is transparent.

    In grey first: to scale one channel takes a third of the time of an image with its transparency.
    """
    if not image.has_transparency_data:
        return image.convert(mode)
    if image.mode not in ('RGBA', 'LA'):
        image = image.convert('RGBA')
    white = PIL.Image.new(mode, image.size, 'white')
    white.paste(image.convert(mode), mask=image.getchannel('A'))
    return white


def _small(image: PIL.Image.Image) -> PIL.Image.Image:
    """The mean of each 64th of the height and width."""
    return image.resize((64, 64), PIL.Image.Resampling.BOX)


def _spread(image: PIL.Image.Image) -> int:
    """The most that two pixels differ in a channel."""
    extrema: Any = image.getextrema()  # A pair, or one for each channel.
    return max(high - low for low, high in ([extrema] if image.mode == 'L' else extrema))


def perceptual_hash(grey: UInt8[np.ndarray, '64 64']) -> bytes:
    """pHash with 256 bits: which of the lowest frequencies of a cosine transform are above their median.

    With the usual 64 bits, a photograph and the same photograph in oil or with noise are one.
    """
    cosines = _cosines()
    low = (cosines @ grey.astype(np.float64) @ cosines.T).ravel()
    median = np.partition(low[1:], 127)[127]  # The first is the brightness.
    return np.packbits(low > median).tobytes()


@functools.cache
def _cosines() -> Float[np.ndarray, '16 64']:
    return np.cos(np.pi * np.arange(16)[:, None] * (2 * np.arange(64) + 1) / 128)


def distance(looks: UInt64[np.ndarray, 'n 4'], one: bytes) -> UInt8[np.ndarray, ' n']:
    """The number of bits in which hashes differ from one."""
    return np.bitwise_count(looks ^ as_words([one])).sum(-1, dtype=np.uint16).clip(0, 255).astype(np.uint8)


def as_words(hashes: Sequence[bytes]) -> UInt64[np.ndarray, 'n 4']:
    """Hashes as an array."""
    return np.frombuffer(b''.join(hashes), np.uint64).reshape(-1, 4)


@functools.cache
def _formats() -> list[str]:
    """The formats that are read: of some Pillow needs a library, or a plug-in that registers itself."""
    PIL.Image.init()
    return ['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'ICO', *({'AVIF', 'JXL'} & set(PIL.Image.OPEN))]


def format_of(data: bytes) -> str:
    """The format of an encoded image, by its first bytes; '' if it is none. Says nothing of the rest."""
    for begins, name in BEGINS:
        if data.startswith(begins):
            return name
    if data[:2] == b'BM' and data[6:10] == bytes(4):
        return 'BMP'
    if data[4:8] == b'ftyp' and data[8:12] in (b'avif', b'avis', b'mif1', b'msf1'):
        return 'AVIF' if b'avif' in data[8:64] or b'avis' in data[8:64] else ''
    if data[:4] == b'RIFF' and data[8:12] == b'WEBP':
        return 'WEBP'
    begin = data[:1000].lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    is_xml = begin.startswith((b'<?xml', b'<!--', b'<!doctype svg'))
    return 'SVG' if begin.startswith(b'<svg') or (is_xml and b'<svg' in begin) else ''


def first_frame(data: bytes) -> bytes:
    """A still: of a GIF that moves its first frame as a PNG, of all others what is given."""
    if format_of(data) != 'GIF':
        return data
    with PIL.Image.open(io.BytesIO(data), formats=['GIF']) as image:
        if getattr(image, 'n_frames', 1) == 1:
            return data
        image.seek(0)
        made = io.BytesIO()
        image.convert('RGBA').save(made, 'PNG')
    return made.getvalue()


def _what_it_is(data: bytes) -> str:
    """The rule's name for what is not an image."""
    begin = data[:1000].lstrip().lower()
    if begin.startswith((b'<!doctype html', b'<html', b'<head', b'<body')):
        return 'image_is_html'
    found = format_of(data)
    return 'image_svg' if found == 'SVG' else 'image_formats' if found == 'JXL' else 'image_unreadable'
