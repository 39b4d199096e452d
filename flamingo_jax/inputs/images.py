"""Any image or video -> the square uint8 RGB frames of one size that a Flamingo takes.

The config of a trunk says how images are made square:

    pad      the longer side is resized to fit, the rest is padded with the image's own mean
    mean     the same, padded with the mean of the trunk's training images, which normalises to 0 (paper)
    crop     the shorter side is resized to fit, the centre is cut out (CLIP)
    squash   both sides are resized to fit, the aspect ratio is lost (SigLIP, IDEFICS)
    canvas   not square: on a canvas of up to four squares (`inputs/canvas.py`, Llama 3.2 Vision)
    tile     on a canvas of one square

An image with transparent parts is put on white, and 'pad' pads it with white: the mean of a cut-out on white is
neither the colour of the cut-out nor of its background. A padded image is centred.
"""

import contextlib
import dataclasses
import errno
import functools
import io
import json
import os
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import UInt8

from flamingo_jax.errors import UserError
from flamingo_jax.files import read_bytes
from flamingo_jax.inputs import canvas
from flamingo_jax.model.config import FlamingoConfig

# The frames of one image: pixels uint8 [t height width 3], or the trunk's features [t s d_v].
Frames: TypeAlias = np.ndarray
PADDED = ('pad', 'mean')
MEAN = (123.675, 116.28, 103.53)  # Of ImageNet's pixels, which NFNet subtracts.
SIXTEEN = ('PNG', 'PPM')  # Formats whose 16 bits PIL gives as 32.
BICUBIC = PIL.Image.Resampling.BICUBIC
QUARTERS = ('top left', 'top right', 'bottom left', 'bottom right')
NINTHS = ('top left', 'top', 'top right', 'left', 'middle', 'right', 'bottom left', 'bottom', 'bottom right')
PLACES = {2: QUARTERS, 3: NINTHS}  # The tiles' places by how many there are in a row.


@dataclasses.dataclass(frozen=True)
class Unread:
    """An image or a video of a prompt, which is read only if the model has not seen it before.

    Attributes:
      identity: what tells it from all others.
      read: gives its frames.
    """

    identity: Hashable
    read: Callable[[], Frames] = dataclasses.field(compare=False)


# A still, or the frames of a video in order.
Still: TypeAlias = PIL.Image.Image | np.ndarray | str | os.PathLike | bytes
ImageLike: TypeAlias = Still | Sequence[Still] | Unread


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """How a model takes its images; every source of images is opened with one."""

    size: int  # Height and width, in pixels.
    fit: str = 'pad'  # How images are made square: see the head of this file.
    spatial: int = 0  # s and d_v of the trunk's features, if features may replace pixels.
    width: int = 0
    trunk: str = ''  # Checksum of the trunk that features must come from; '' skips the check.
    vision: str = ''  # The trunk's config as JSON: what its parameters do not tell; '' skips the check.

    @classmethod
    def of(cls, config: FlamingoConfig, trunk: str = '') -> 'ImageFormat':
        """The image format of a model. trunk: the checksum of its trunk."""
        if config.vision is None:
            return cls(config.image_size)
        spatial, width = config.vision.places(config.image_size), config.vision.width
        return cls(config.image_size, config.fit, spatial, width, trunk, json.dumps(config.to_json()['vision']))

    @property
    def square(self) -> 'ImageFormat':
        """The same for images that must be of one shape, such as those of a batch in training."""
        return dataclasses.replace(self, fit='tile') if self.fit == 'canvas' else self

    def blank(self, frames: int, features: bool = False) -> Frames:
        """An empty image of `frames` frames, with the shape and dtype of every other image."""
        if features:
            return np.zeros((frames, self.spatial, self.width), np.float16)
        return np.zeros((frames, self.size, self.size, 3), np.uint8)


class ImageError(UserError):
    """An image that is none, or damaged. The message names the file or the frame, and says what is wrong.

    Only what a decoder says of bytes that were read is an image's fault. What the file system, the network or the
    memory says is an OSError or a MemoryError: a run that took it for the image's would train on nothing.
    """


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """What a decoder says of the bytes of an image or video becomes an ImageError, and nothing else does."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if of_decoder(error):
            raise ImageError(f'{name} cannot be decoded: {type(error).__name__}: {error}') from error
        if isinstance(error, MemoryError):
            raise MemoryError(f'There is not enough memory to decode {name}.') from error
        raise


def of_decoder(error: Exception) -> bool:
    """Whether an error is a decoder's, and not the machine's. Each of them has its own errors for damaged data.

    PIL's are OSErrors without a number. FFmpeg's have the numbers of the system, such as EIO for a video that is cut
    short and ENOMEM for a damaged head. EINVAL is of a decoder that looks for a place before the file's beginning.
    """
    if (av := sys.modules.get('av')) and isinstance(error, av.FFmpegError):
        return True
    return not isinstance(error, MemoryError) and getattr(error, 'errno', None) in (None, errno.EINVAL)


def to_frames(image: ImageLike, size: int, fit: str = 'pad') -> UInt8[np.ndarray, 't height width 3']:
    """The frames of an image, fitted into squares.

    image: a PIL image; a uint8 array [height width], [height width 3] or [height width 4]; a path; an encoded file
    as bytes; or, for a video, a list of these or a uint8 array [t height width 3]; or one that is not read yet. An
    animated file gives its first frame.
    size: height and width of the result, or of each tile of a canvas, in pixels. Smaller images are enlarged.
    fit: 'pad', 'mean', 'crop', 'squash', 'canvas' or 'tile', see the head of this file.

    Orientation from EXIF is applied. Resizing is bicubic with antialiasing. 'crop' and 'squash' are bit for bit those
    of open_clip and transformers with PIL.
    Raises:
      ImageError: it is no image, or truncated, empty, of 32 bits or floats, or of another type or dtype.
      OSError: the file is missing, or could not be read in several tries (`files.persist`).
    """
    if isinstance(image, Unread):
        image = image.read()
    if _is_video(image):
        if not len(image):
            raise ImageError('A video is an empty list. Give at least one frame.')
        return np.stack([_frame(still, size, fit, f'frame {number} of a video') for number, still in enumerate(image)])
    return _frame(image, size, fit, 'an image')[None]


def tiles(image: PIL.Image.Image, side: int = 2) -> list[PIL.Image.Image]:
    """An image and its tiles, `side` rows of as many, in the order of PLACES (as in LLaVA 1.6).

    As an image of its own, each tile has features at `side` times the resolution, and the text after it can say where
    it lies. The resampler has no positions in space, as in the paper.
    """
    columns, rows = ([i * whole // side for i in range(side + 1)] for whole in image.size)
    boxes = [(columns[x], rows[y], columns[x + 1], rows[y + 1]) for y in range(side) for x in range(side)]
    return [image, *map(image.crop, boxes)]


def decode(data: bytes) -> PIL.Image.Image:
    """An encoded PNG, WebP, JPEG, GIF, ... as a decoded image. ImageError if it is not an image or is truncated."""
    return _load(data, 'an image', size=None)


def eight_bits(image: PIL.Image.Image, name: str = 'an image') -> PIL.Image.Image:
    """An image whose channels have 8 bits. PIL's own conversion of 16 would clip at 255, not scale.

    ImageError for 32 bits or floats: nothing says which of them is white.
    """
    if image.mode == 'F' or (image.mode == 'I' and image.format not in SIXTEEN):
        raise ImageError(f'{name} has pixels of {"floats" if image.mode == "F" else "32 bits"}. Give 8 or 16 bits.')
    if not image.mode.startswith('I'):
        return image
    pixels = np.asarray(image)
    grey = PIL.Image.fromarray((np.clip(pixels, 0, 65535) // 257).astype(np.uint8))
    if (clear := image.info.get('transparency')) is not None:  # The one value that is transparent.
        grey.putalpha(PIL.Image.fromarray(np.where(pixels == clear, 0, 255).astype(np.uint8)))
    return grey


def _is_video(image: ImageLike) -> bool:
    return isinstance(image, list | tuple) or (isinstance(image, np.ndarray) and image.ndim == 4)


def _frame(still: Still, size: int, fit: str, name: str) -> UInt8[np.ndarray, 'height width 3']:
    if isinstance(still, str | os.PathLike):
        name = f'{name} ({os.fspath(still)})' if name.startswith('frame') else os.fspath(still)
    image = _load(still, name, size if fit in PADDED else None)
    background = None
    if image.has_transparency_data:
        image = image.convert('RGBA')
        extrema: Any = image.getextrema()  # A pair for each channel.
        if extrema[3][0] < 255:  # A channel that is opaque everywhere does not count.
            white = PIL.Image.new('RGBA', image.size, 'white')
            image, background = PIL.Image.alpha_composite(white, image), (255, 255, 255)
    image = image.convert('RGB')
    if fit == 'canvas':
        return np.asarray(canvas.of(image, size))
    if fit == 'tile':
        return np.asarray(canvas.of(image, size, tiles=1))
    if fit not in PADDED:
        return np.asarray(_cropped(image, size, name) if fit == 'crop' else image.resize((size, size), BICUBIC))

    fitted = _fitted(image.size, size)
    if fitted != image.size:
        # `reducing_gap` first shrinks a large image by a whole factor, to at least twice the size: far faster.
        image = image.resize(fitted, BICUBIC, reducing_gap=2.0)
    if fitted == (size, size):
        return np.asarray(image)
    if fit == 'mean':
        background = MEAN
    elif background is None:
        background = np.asarray(image).sum(0, dtype=np.uint32).sum(0) / (fitted[0] * fitted[1])
    # PIL fills a square ten times as fast as NumPy, whose last axis would be the three channels.
    square = PIL.Image.new('RGB', (size, size), tuple(np.round(background).astype(int).tolist()))
    square.paste(image, ((size - fitted[0]) // 2, (size - fitted[1]) // 2))
    return np.asarray(square)


def _fitted(sides: tuple[int, int], size: int) -> tuple[int, int]:
    """The sides of an image whose longer one is to be `size`."""
    scale = size / max(sides)
    return max(1, round(sides[0] * scale)), max(1, round(sides[1] * scale))


def _cropped(image: PIL.Image.Image, size: int, name: str) -> PIL.Image.Image:
    """The middle of an image, with the roundings of torchvision's Resize and CenterCrop.

    ImageError for an image so narrow that it would be resized to one that PIL would not open.
    """
    shorter = min(image.size)
    width, height = (size if side == shorter else int(size * side / shorter) for side in image.size)
    if width * height > (PIL.Image.MAX_IMAGE_PIXELS or np.inf):
        raise ImageError(f'{name} has {image.width} x {image.height} pixels. Cut it to a less narrow shape.')
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), BICUBIC).crop((left, top, left + size, top + size))


def opened(data: bytes | BinaryIO) -> PIL.Image.Image:
    """An encoded image, not decoded yet; PIL's errors.

    For EPS, PIL would run another program on what it is given. MPEG it knows by its head, but cannot decode.
    """
    return PIL.Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=_formats())


@functools.cache
def _formats() -> tuple[str, ...]:
    PIL.Image.init()
    return tuple(sorted({*PIL.Image.ID} - {'EPS', 'MPEG'}))


def _load(still: Still, name: str, size: int | None) -> PIL.Image.Image:
    """An upright image, decoded. With `size`, a JPEG may be decoded at reduced scale, but no smaller than it is fitted.

    The decoder averages by whole factors: pixels differ by .7 of 255 in the mean from bicubic scaling of the full
    image (drawings and photographs of 500 to 1,280 pixels, fitted to 320), and take a fifth of its time.
    """
    if isinstance(still, np.ndarray):
        still = _from_array(still, name)
    elif not isinstance(still, PIL.Image.Image | str | os.PathLike | bytes):
        raise ImageError(
            f'{name} is of type {type(still).__name__}. '
            'Give a PIL image, a uint8 array, a path, bytes, or a list of these for a video.'
        )
    elif isinstance(still, str | os.PathLike):
        still = read_bytes(still)
    with decoding(name):
        try:
            image = opened(still) if isinstance(still, bytes) else still
        except PIL.UnidentifiedImageError as error:
            raise ImageError(f'{name} is not an image that PIL can read ({len(still):,} bytes).') from error
        if size is not None and image is not still:
            image.draft(None, _fitted(image.size, size))
        image.load()
        upright = PIL.ImageOps.exif_transpose(image)
        upright.format = image.format
    return eight_bits(upright, name)


def _from_array(array: np.ndarray, name: str) -> PIL.Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f'{name} is an array of dtype {array.dtype}. Give uint8, from 0 to 255.')
    if 0 in array.shape or not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        raise ImageError(
            f'{name} is an array of shape {array.shape}. Give [height width], [height width 3] or [height width 4].'
        )
    return PIL.Image.fromarray(array)
