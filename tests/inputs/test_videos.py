"""Videos of each kind, made here: frame i of n is of the grey 10 i."""

import io
import struct
import sys

import numpy as np
import PIL.Image
import pytest

from flamingo_jax import files
from flamingo_jax.errors import MissingPackageError
from flamingo_jax.inputs.images import ImageError
from flamingo_jax.inputs.videos import has_no_head, times, to_video


def still(value):
    return PIL.Image.new('RGB', (16, 16), (value,) * 3)


def encoded(image, kind='PNG', **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def animation(kind, frames, milliseconds):
    rest = [still(10 * i) for i in range(1, frames)]
    return encoded(still(0), kind, save_all=True, append_images=rest, duration=milliseconds, lossless=True)


def video(frames, rate, kind='mp4', codec='mpeg4'):
    av = pytest.importorskip('av')
    file = io.BytesIO()
    with av.open(file, 'w', format=kind) as container:
        stream = container.add_stream(codec, rate=rate, options={'qscale': '1'})
        stream.width = stream.height = 16
        for i in range(frames):
            frame = av.VideoFrame.from_image(still(10 * i))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def test_a_video_that_was_taken_sideways_is_turned():
    """As a telephone writes it: a matrix in the file says how it is to be shown."""
    av = pytest.importorskip('av')
    file, frame = io.BytesIO(), np.zeros((32, 16, 3), np.uint8)
    frame[:16] = 250
    with av.open(file, 'w', format='mp4') as container:
        stream = container.add_stream('mpeg4', rate=4)
        stream.width, stream.height = 16, 32
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    data = file.getvalue()
    assert (to_video(data, 1, 8, 'squash')[0, :, :, 0] > 128).sum(axis=1).tolist() == [8] * 4 + [0] * 4
    header = data.index(b'tkhd')  # Its matrix of nine numbers begins 44 bytes after the name.
    matrix = struct.pack('>9i', 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)  # A quarter to the right.
    turned = data[: header + 44] + matrix + data[header + 80 :]
    assert (to_video(turned, 1, 8, 'squash')[0, :, :, 0] > 128).sum(axis=0).tolist() == [0] * 4 + [8] * 4


@pytest.mark.parametrize('kind', ['mpegts', 'mpeg', 'matroska', 'avi'])
def test_a_video_without_an_index_begins_where_it_is_asked_to(kind):
    av = pytest.importorskip('av')
    file = io.BytesIO()
    with av.open(file, 'w', format=kind) as container:
        stream = container.add_stream('mpeg2video', rate=25, options=dict(qscale='1', g='10'))
        stream.width = stream.height = 32
        for i in range(100):
            value = np.full((32, 32, 3), 2 * i + 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(value)))
        container.mux(stream.encode())
    for begin in (0.0, 1.0, 2.3):
        clip = to_video(file.getvalue(), 4, 8, 'squash', segment=(begin, begin + 1.0))
        frames = ((clip.mean(axis=(1, 2, 3)) - 20) / 2).tolist()
        np.testing.assert_allclose(frames, 25 * begin + 25 * (np.arange(4) + 0.5) / 4, atol=2.5)


def greys(clip):
    return [int(round(frame.mean() / 10)) for frame in clip.astype(float)]


def test_when_frames_are_taken():
    np.testing.assert_allclose(times(4.0, 8, 0.9), np.arange(0.25, 4, 0.5))  # All of a short one, evenly.
    np.testing.assert_allclose(times(22.0, 8, 0.0), np.arange(0.5, 8))  # Of a long one 8 seconds, one a second.
    np.testing.assert_allclose(times(22.0, 8, 1.0), np.arange(14.5, 22))


@pytest.mark.parametrize('make', [animation, video])
def test_an_encoded_clip(make):
    """Of 20 frames, 4 a second: 5 seconds."""
    clip = animation('WEBP', 20, 250) if make is animation else video(20, 4)
    assert greys(to_video(clip, 4, 8, 'pad', start=0.0)) == [2, 6, 10, 14]
    assert greys(to_video(clip, 4, 8, 'pad', start=1.0)) == [6, 10, 14, 18]
    assert greys(to_video(clip, 10, 8, 'pad')) == list(range(1, 20, 2))
    assert greys(to_video(clip, 40, 8, 'pad')) == [i // 2 for i in range(40)]


def test_a_gif_a_list_of_frames_a_path_and_a_still(tmp_path):
    assert greys(to_video(animation('GIF', 8, 1000), 4, 8, 'pad', start=0.0)) == [0, 1, 2, 3]
    frames = [encoded(still(10 * i)) for i in range(8)]
    assert greys(to_video(frames, 8, 8, 'pad')) == list(range(8))
    assert greys(to_video(frames, 4, 8, 'pad', start=1.0)) == [4, 5, 6, 7]
    assert greys(to_video(frames[:2], 4, 8, 'pad')) == [0, 0, 1, 1]
    (tmp_path / 'a.webp').write_bytes(animation('WEBP', 4, 1000))
    assert greys(to_video(tmp_path / 'a.webp', 4, 8, 'pad')) == [0, 1, 2, 3]
    assert greys(to_video(encoded(still(50)), 3, 8, 'pad')) == greys(to_video(still(50), 3, 8, 'pad')) == [5, 5, 5]


def test_without_the_extra_a_video_says_how_it_can_be_read(monkeypatch, tmp_path):
    clip = video(8, 4)
    (tmp_path / 'video.mp4').write_bytes(clip)
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(MissingPackageError, match=r'is a video file. To read it: pip install .flamingo_jax\[videos\]'):
        to_video(clip, 4, 8, 'pad')
    with pytest.raises(
        MissingPackageError, match=r'video.mp4 is a video file. To read it: pip install .flamingo_jax\[videos\]'
    ):
        has_no_head(tmp_path / 'video.mp4')


@pytest.mark.parametrize('kind', ['matroska', 'avi', 'mpegts', 'asf'])
def test_other_kinds_of_files(kind):
    found = to_video(video(20, 4, kind), 4, 8, 'pad', start=0.0)
    assert found.shape == (4, 8, 8, 3) and greys(found) == [2, 6, 10, 14]


def test_a_file_that_names_others_is_no_video(tmp_path, monkeypatch):
    """FFmpeg would open what it names: a file of the working folder, or a socket, at which it waits for ever."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'secret.mp4').write_bytes(video(8, 4))
    session = 'v=0\nc=IN IP4 127.0.0.1\nm=video 45671 RTP/AVP 96\na=rtpmap:96 H264/90000\n'
    for text in ("ffconcat version 1.0\nfile 'secret.mp4'\n", session):
        with pytest.raises(ImageError, match='cannot be decoded'):
            to_video(text.encode(), 4, 8, 'squash')


def test_damage_is_an_image_error(tmp_path):
    """Cut short, scrambled or empty: never another error, and never less frames than asked for."""
    rng = np.random.default_rng(0)
    for clip in (animation('WEBP', 6, 250), animation('GIF', 6, 250), video(12, 4)):
        for _ in range(40):
            bad = bytearray(clip[: rng.integers(1, len(clip))] if rng.random() < 0.5 else clip)
            for at in rng.integers(0, len(bad), 6):
                bad[at] = rng.integers(256)
            try:
                assert to_video(bytes(bad), 4, 8, 'pad').shape == (4, 8, 8, 3)
            except ImageError:
                pass
    for nothing in ([], b'', b'no video'):
        with pytest.raises(ImageError):
            to_video(nothing, 4, 8, 'pad')


def test_what_the_disk_says_is_no_fault_of_the_video(tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'WAITS', ())
    with pytest.raises(FileNotFoundError, match=r'missing.mp4'):
        to_video(tmp_path / 'missing.mp4', 4, 8, 'pad')
    (tmp_path / 'video.mp4').symlink_to('/proc/self/mem')  # A process has no first byte: reading it is EIO.
    with pytest.raises(OSError, match=r'Errno 5.*video.mp4'):
        to_video(tmp_path / 'video.mp4', 4, 8, 'pad')
    with pytest.raises(OSError, match='Input/output error'):
        has_no_head(tmp_path / 'video.mp4')


def test_sound_alone_has_no_video_stream():
    av = pytest.importorskip('av')
    file = io.BytesIO()
    with av.open(file, 'w', format='mp4') as container:
        stream = container.add_stream('aac', rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    with pytest.raises(ImageError, match='a video has no video stream: it is sound alone'):
        to_video(file.getvalue(), 4, 8, 'pad')


def test_an_elementary_stream_of_mpeg_is_a_video(tmp_path):
    """PIL knows it by its first bytes, too, but cannot decode it."""
    (tmp_path / 'video.mpg').write_bytes(video(8, 25, 'mpeg1video', 'mpeg1video'))
    assert to_video(tmp_path / 'video.mpg', 4, 8, 'pad').shape == (4, 8, 8, 3) and not has_no_head(
        tmp_path / 'video.mpg'
    )
