"""A file that somebody gives the page -> a still or the frames of a film, small enough to keep and to send again."""

import io
import re
import warnings

import PIL.Image

from flamingo_jax.inputs.films import to_film
from flamingo_jax.inputs.images import BICUBIC, PictureError, PictureFormat, decode

BYTES = 32 * 2**20  # Most bytes of a file. The page shrinks a larger still before it sends it.
PIXELS = 80e6  # Most pixels of a picture.
FILM_PIXELS = 500e6  # Most pixels of all frames of an animated picture.
SHOWN = 512  # Most pixels of the longer side of what is kept.
KEPT = 300_000  # Most bytes of a small picture that is kept as it is.
TYPES = ('PNG', 'JPEG', 'WEBP', 'GIF')  # Every browser shows these.
# What is opened. PIL knows more formats, and runs another program for one of them (EPS).
READ = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'TIFF')
HEIC = re.compile(rb'.{4}ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)', re.DOTALL)  # How such a file begins.
NO_HEIC = (
    'This is a HEIC picture, as iPhones take them, and it is not read here. Save it as JPEG: on a Mac by Export in '
    'Preview, on Windows by Save as in Photos, on Linux by heif-convert (package libheif-examples). An iPhone takes '
    'JPEG if Settings, Camera, Formats says Most Compatible.'
)
MOVING = ('PNG', 'WEBP', 'GIF')  # Several pictures in another file, such as a phone's JPEG, are no film.


def check(data: bytes) -> tuple[str, int, int]:
    """A picture's format, longer side and number of frames, before its pixels are decoded.

    Raises:
      PictureError: it is no picture, or larger than the limits.
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
            raise PictureError(NO_HEIC) from error
        raise PictureError('This is not a picture that can be read: PNG, JPEG, WebP, GIF, BMP or TIFF.') from error
    if pixels > PIXELS:
        raise PictureError(f'The picture has more than {PIXELS / 1e6:.0f} megapixels. Make it smaller.')
    if frames > 1 and pixels * frames > FILM_PIXELS:
        raise PictureError(
            f'The {frames} frames have more than {FILM_PIXELS / 1e6:.0f} megapixels together. Make the film shorter '
            'or smaller.'
        )
    return image.format or '', max(image.size), frames


def _opened(data: bytes) -> PIL.Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)  # `PIXELS` is lower.
        return PIL.Image.open(io.BytesIO(data), formats=READ)


def _is_picture(data: bytes) -> bool:
    """Whether a file is a picture, however large, and not a video file."""
    try:
        _opened(data)
    except PIL.Image.DecompressionBombError:
        return True
    except Exception:
        return False
    return True


def prepare(data: bytes, pictures: PictureFormat, frames: int, film: bool = False) -> list[bytes]:
    """The frames of an uploaded file, encoded: one of a still, `frames` of a film.

    A small still is kept as it is. A larger one is made smaller, so that the page can keep it.

    Args:
      data: the file.
      pictures: how the model takes pictures; the frames of a film are fitted so.
      frames: how many of a film; 1 for a model that takes none.
      film: whether the file is called a video. A picture is treated as a picture, whatever it is called.

    Raises:
      PictureError: it cannot be read, or is larger than the limits.
    """
    film = film and not _is_picture(data)
    if not film:
        kind, side, number = check(data)
    if film or (number > 1 and frames > 1):
        if frames == 1:
            raise PictureError('This model does not take films. Give a picture.')
        return [_png(PIL.Image.fromarray(frame)) for frame in to_film(data, frames, pictures.size, pictures.fit)]
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
