"""Checks that a picture or film can be read, before training."""

import base64
import io
import warnings
from typing import Any

import PIL.Image

from flamingo_jax.inputs.films import to_film
from flamingo_jax.inputs.images import PictureError

LARGEST_SIDE, LARGEST_AREA = 20_000, 10**8  # Pixels. OBELICS has the same longest side.
LARGEST_FILM = 2**28  # Bytes.
PICTURES = ('.jpg', '.jpeg', '.png', '.webp', '.gif', '.bmp', '.tif', '.tiff')
FILMS = ('.mp4', '.webm', '.mkv', '.avi', '.mov', '.m4v', '.mpg', '.mpeg')


def picture_rule(data: bytes) -> str:
    """The rule that drops an encoded picture; '' keeps it. Decodes it, at reduced scale where the format can."""
    if not data:
        return 'picture_empty'
    if data[:512].lstrip().lower().startswith((b'<!doctype html', b'<html')):
        return 'picture_is_html'
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)  # The rule below is stricter.
            image = PIL.Image.open(io.BytesIO(data))
        width, height = image.size
        if max(width, height) > LARGEST_SIDE or width * height > LARGEST_AREA:
            return 'picture_too_large'
        image.draft('RGB', (64, 64))
        image.load()
    except PIL.Image.DecompressionBombError:
        return 'picture_too_large'
    except Exception:  # Each of PIL's decoders has its own errors for damaged data.
        return 'picture_unreadable'
    return ''


def film_rule(data: bytes) -> str:
    """The rule that drops an encoded clip; '' keeps it. Decodes its last seconds, as training would.

    Raises:
      ImportError: PyAV is not installed.
    """
    if not data:
        return 'film_empty'
    try:
        import av
    except ImportError as error:
        raise ImportError(f"Films are checked with PyAV: pip install 'flamingo_jax[films]' ({error}).") from error
    av.logging.set_level(av.logging.PANIC)
    if len(data) > LARGEST_FILM:
        return 'film_too_large'
    try:
        to_film(data, 2, 16, 'squash', start=1.0)
    except PictureError:
        return 'film_unreadable'
    return ''


def decoded(text: Any) -> bytes | None:
    """The bytes of a text in base64, with or without 'data:image/png;base64,'; b'' if it is none, None without text."""
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text.partition(',')[2] if text.startswith('data:') else text)
    except ValueError:
        return b''
