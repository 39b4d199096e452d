"""Checks that an image or video can be read, before training."""

import base64
from typing import Any

from flamingo_jax.building.image_checks import LookError, look_at
from flamingo_jax.building.rules import PageRules
from flamingo_jax.errors import MissingPackageError
from flamingo_jax.inputs.images import ImageError
from flamingo_jax.inputs.videos import to_video

LARGEST_VIDEO = 2**28  # Bytes.
IMAGES = ('.jpg', '.jpeg', '.png', '.webp', '.gif', '.bmp', '.tif', '.tiff')
VIDEOS = ('.mp4', '.webm', '.mkv', '.avi', '.mov', '.m4v', '.mpg', '.mpeg')
# Published sets are filtered already. What is left to ask is whether an image can be read, in reasonable memory.
READABLE = PageRules(
    image_formats=('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF'),
    image_min_side=1,
    image_aspect=0.0,
    image_one_colour=0.0,
    image_max_bytes=0,
)


def image_rule(data: bytes) -> str:
    """The rule that drops an encoded image; '' keeps it. It is decoded, at reduced scale where the format can."""
    try:
        look_at(data, READABLE)
    except LookError as error:
        return error.rule
    return ''


def video_rule(data: bytes) -> str:
    """The rule that drops an encoded clip; '' keeps it. Decodes its last seconds, as training would.

    Raises:
      ImportError: it is a video file, and PyAV is not installed.
    """
    if not data:
        return 'video_empty'
    if len(data) > LARGEST_VIDEO:
        return 'video_too_large'
    try:
        to_video(data, 2, 16, 'squash', start=1.0)
    except ImageError:
        return 'video_unreadable'
    return ''


def require_av() -> None:
    """Checks that video files can be read.

    Raises:
      ImportError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingPackageError(
            f"Video files are read with PyAV: pip install 'flamingo_jax[videos]' ({error})."
        ) from error
    av.logging.set_level(av.logging.PANIC)  # What FFmpeg says of damaged files.


def decoded(text: Any) -> bytes | None:
    """The bytes of a text in base64, with or without 'data:image/png;base64,'; b'' if it is none, None without text."""
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text.partition(',')[2] if text.startswith('data:') else text)
    except ValueError:
        return b''
