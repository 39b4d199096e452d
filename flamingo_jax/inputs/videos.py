"""A video -> a fixed number of its frames, evenly spaced, at least one a second (paper: 8 in training, 1 a second; 30
in evaluation, 3 a second).

A video is a list of images, assumed to be at most a second apart, or an encoded clip: an animated WebP, GIF or PNG
(PIL), or a video file (PyAV: pip install 'flamingo_jax[videos]'). A still is a video in which nothing moves.
"""

import dataclasses
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import PIL.ImageSequence
from jaxtyping import UInt8

from flamingo_jax.errors import MissingPackageError
from flamingo_jax.files import read_bytes
from flamingo_jax.inputs.images import ImageError, Still, decoding, of_decoder, opened, to_frames

APART = 1.0  # Most seconds between two frames.
SAME = 1e-6  # Times of one frame differ by less, in seconds.
# Other formats are lists of addresses: FFmpeg would open the files, sockets or sites that such a file names.
FORMATS = 'mov,matroska,avi,mpeg,mpegts,mpegvideo,flv,ogg,asf'
ENCODED = bytes | str | os.PathLike
Segment = tuple[float, float | None]


def to_video(
    video: Still | Sequence[Still],
    frames: int,
    size: int,
    fit: str,
    start: float = 0.5,
    apart: float = APART,
    segment: Segment = (0.0, None),
) -> UInt8[np.ndarray, '{frames} {size} {size} 3']:
    """Frames of a video, fitted into squares as images are (`inputs/images.py`).

    Args:
      video: encoded, or a list of images.
      frames: how many.
      size, fit: as for `to_frames`.
      start: where in a video longer than `frames` * `apart` seconds the piece of that length is taken: 0 is the
        beginning of the video, 1 its end.
      apart: most seconds between two frames.
      segment: begin and end in seconds of the part of an encoded video to which all this applies; None is its end.

    Raises:
      ImageError: it is no video, or damaged, or has no such segment.
      OSError: as for `to_frames`.
      ImportError: it needs PyAV, which is not installed.
    """
    piece = Piece(frames, start, apart, segment)
    if not isinstance(video, ENCODED | PIL.Image.Image) and not (isinstance(video, np.ndarray) and video.ndim == 3):
        if not len(video):
            raise ImageError('A video is an empty list. Give at least one frame.')
        chosen = times(float(len(video)), frames, start, apart).astype(int)
        return to_frames([video[i] for i in chosen], size, fit)
    if not isinstance(video, ENCODED):
        return np.repeat(to_frames(video, size, fit), frames, axis=0)
    data = video if isinstance(video, bytes) else read_bytes(video)
    name = 'a video' if isinstance(video, bytes) else os.fspath(video)
    with decoding(name):
        try:
            animation = opened(data)
        except PIL.UnidentifiedImageError:
            return to_frames(list(_video(data, name, piece)), size, fit)
        if getattr(animation, 'n_frames', 1) > 1:
            return to_frames(list(_animation(animation, name, piece)), size, fit)
        return np.repeat(to_frames(data, size, fit), frames, axis=0)


def has_no_head(path: str | os.PathLike) -> bool:
    """Whether a video's file is empty or its head is damaged, as a broken download's is. The rest is not read.

    Raises:
      OSError: the file cannot be read, which says nothing of the video.
      ImportError: it is a video file, and PyAV is not installed.
    """
    with open(path, 'rb') as file:
        try:
            opened(file)
        except PIL.UnidentifiedImageError:
            return _has_no_video(file, os.fspath(path))
        except Exception as error:
            if not of_decoder(error):
                raise
            return True
    return False


def _has_no_video(file: BinaryIO, name: str) -> bool:
    file.seek(0)
    try:
        with _opened(file, name) as container:
            return not container.streams.video
    except MissingPackageError:
        raise
    except Exception as error:
        if not of_decoder(error):
            raise
        return True


def times(seconds: float, frames: int, start: float, apart: float = APART) -> np.ndarray:
    """The times of a video's frames, in seconds: the middles of equal parts of at most `apart` seconds."""
    length = min(seconds, frames * apart)
    return start * (seconds - length) + (np.arange(frames) + 0.5) * length / frames


@dataclasses.dataclass(frozen=True)
class Piece:
    """Which frames of a video are shown: the arguments of `to_video`."""

    frames: int
    start: float
    apart: float
    segment: Segment

    def times(self, seconds: float, name: str) -> np.ndarray:
        """Their times in a video of this length. ImageError if the segment does not begin within it."""
        begin, end = self.segment
        end = seconds if end is None else min(end, seconds)
        if not 0 <= begin < end:
            raise ImageError(f'{name} has {seconds:.1f} seconds: there is nothing from {begin} to {self.segment[1]} s.')
        return begin + times(end - begin, self.frames, self.start, self.apart)


def _animation(image: PIL.Image.Image, name: str, piece: Piece) -> Iterator[PIL.Image.Image]:
    seconds = []
    for frame in PIL.ImageSequence.Iterator(image):
        frame.load()  # PIL knows the duration of a WebP's frame only then.
        seconds.append((frame.info.get('duration') or 100) / 1000)  # A GIF's 0 is shown as a tenth of a second.
    ends = np.cumsum(seconds)
    for at in np.searchsorted(ends, piece.times(float(ends[-1]), name), side='right'):
        image.seek(min(int(at), len(ends) - 1))
        yield image.convert('RGBA' if image.has_transparency_data else 'RGB')


def _decoded(data: bytes, name: str, begin: float) -> Iterator[Any]:
    """The frames of a video file from a time on, or from one before it."""
    # From the key frame before that time, or from the beginning: MPEG's streams have no index, and may seek too far.
    for seeks in (True, False):
        with _opened(data, name) as container:
            stream = container.streams.video[0]
            if seeks:
                container.seek(int(begin / stream.time_base), stream=stream)
            frames = (frame for frame in container.decode(stream) if frame.time is not None)
            first = next(frames, None)
            if first is not None and (not seeks or first.time <= begin + SAME):
                yield first
                yield from frames
                return


def _opened(data: bytes | BinaryIO, name: str) -> Any:
    """A video file, not decoded yet; FFmpeg's errors. ImportError if PyAV is not installed."""
    try:
        import av  # Large; only videos need it.
    except ImportError as error:
        raise MissingPackageError(f"{name} is a video file. To read it: pip install 'flamingo_jax[videos]'.") from error

    return av.open(io.BytesIO(data) if isinstance(data, bytes) else data, options=dict(format_whitelist=FORMATS))


def _video(data: bytes, name: str, piece: Piece) -> Iterator[PIL.Image.Image]:
    with _opened(data, name) as container:
        if not container.streams.video:
            raise ImageError(f'{name} has no video stream: it is sound alone, or its download was cut short.')
        stream = container.streams.video[0]
        shown = sorted(float(p.pts * p.time_base) for p in container.demux(stream) if p.pts is not None)
        if not shown:
            raise ImageError(f'{name} holds no frames.')
        step = (shown[-1] - shown[0]) / max(len(shown) - 1, 1) or APART
        wanted = shown[0] + piece.times(shown[-1] - shown[0] + step, name)
        left = [shown[i] for i in (np.searchsorted(shown, wanted, side='right') - 1).clip(0)]
    for frame in _decoded(data, name, left[0]):
        while left and frame.time >= left[0] - SAME:
            # Telephones video sideways, and say by how much.
            yield frame.to_image().rotate(frame.rotation, expand=True)
            left.pop(0)
        if not left:
            return
    raise ImageError(f'{name} is cut short: it ends before its last frame.')
