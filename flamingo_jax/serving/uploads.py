"""A file that somebody gives the page -> a still or the frames of a video, small enough to keep and to send again."""

import io
import re
import warnings

import PIL.Image

from flamingo_jax.inputs.images import BICUBIC, ImageError, ImageFormat, decode
from flamingo_jax.inputs.videos import to_video

BYTES = 32 * 2**20  # Most bytes of a file. The page shrinks a larger still before it sends it.
PIXELS = 80e6  # Most pixels of an image.
VIDEO_PIXELS = 500e6  # Most pixels of all frames of an animated image.
SHOWN = 512  # Most pixels of the longer side of what is kept.
KEPT = 300_000  # Most bytes of a small image that is kept as it is.
TYPES = ('PNG', 'JPEG', 'WEBP', 'GIF')  # Every browser shows these.
# What is opened. PIL knows more formats, and runs another program for one of them (EPS).
READ = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'TIFF')
HEIC = re.compile(rb'.{4}ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)', re.DOTALL)  # How such a file begins.
NO_HEIC = (
    'This is a HEIC image, as iPhones take them, and it is not read here. Save it as JPEG: on a Mac by Export in '
    'Preview, on Windows by Save as in Photos, on Linux by heif-convert (package libheif-examples). An iPhone takes '
    'JPEG if Settings, Camera, Formats says Most Compatible.'
)
MOVING = ('PNG', 'WEBP', 'GIF')  # Several images in another file, such as a phone's JPEG, are no video.


def check(data: bytes) -> tuple[str, int, int]:
    """An image's format, longer side and number of frames, before its pixels are decoded.

    Raises:
      ImageError: it is no image, or larger than the limits.
    """
    try:
        image = _opened(data)
        pixels, frames = image.width * image.height, 1
        if pixels <= PIXELS and image.format in MOVING:
            frames = getattr(image, 'n_frames', 1)
    except PIL.Image.DecompressionBombError:
        pixels, frames = 2 * PIXELS, 1
    except Exception as error:  # Each of PIL's decoders has its own errors for damaged data.
        if HEIC.match(data):
            raise ImageError(NO_HEIC) from error
        raise ImageError('This is not an image that can be read: PNG, JPEG, WebP, GIF, BMP or TIFF.') from error
    if pixels > PIXELS:
        raise ImageError(f'The image has more than {PIXELS / 1e6:.0f} megapixels. Make it smaller.')
    if frames > 1 and pixels * frames > VIDEO_PIXELS:
        raise ImageError(
            f'The {frames} frames have more than {VIDEO_PIXELS / 1e6:.0f} megapixels together. Make the video shorter '
            'or smaller.'
        )
    return image.format or '', max(image.size), frames


def _opened(data: bytes) -> PIL.Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)  # `PIXELS` is lower.
        return PIL.Image.open(io.BytesIO(data), formats=READ)


def _is_image(data: bytes) -> bool:
    """Whether a file is an image, however large, and not a video file."""
    try:
        _opened(data)
    except PIL.Image.DecompressionBombError:
        return True
    except Exception:
        return False
    return True


def prepare(data: bytes, image_format: ImageFormat, frames: int, video: bool = False) -> list[bytes]:
    """The frames of an uploaded file, encoded: one of a still, `frames` of a video.

    A small still is kept as it is. A larger one is made smaller, so that the page can keep it.

    Args:
      data: the file.
      image_format: how the model takes images; the frames of a video are fitted so.
      frames: how many of a video; 1 for a model that takes none.
      video: whether the file is called a video. An image is treated as an image, whatever it is called.

    Raises:
      ImageError: it cannot be read, or is larger than the limits.
    """
    video = video and not _is_image(data)
    if not video:
        kind, side, number = check(data)
    if video or (number > 1 and frames > 1):
        if frames == 1:
            raise ImageError('This model does not take videos. Give an image.')
        return [
            _png(PIL.Image.fromarray(frame)) for frame in to_video(data, frames, image_format.size, image_format.fit)
        ]
    if number == 1 and kind in TYPES and side <= SHOWN and len(data) <= KEPT:
        decode(data)  # A damaged file is refused now.
        return [data]
    image = decode(data)
    image = image.convert('RGBA' if image.has_transparency_data else 'RGB')
    image.thumbnail((SHOWN, SHOWN), BICUBIC)
    if image.mode == 'RGBA':
        return [_png(image)]
    out = io.BytesIO()
    image.save(out, 'JPEG', quality=95, subsampling=0)
    return [out.getvalue()]


def _png(image: PIL.Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, 'PNG')
    return out.getvalue()
