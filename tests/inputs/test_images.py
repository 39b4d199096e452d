import errno
import io
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from flamingo_jax import files
from flamingo_jax.inputs.images import NINTHS, QUARTERS, ImageError, decode, tiles, to_frames

RNG = np.random.default_rng(0)


def encoded(image: PIL.Image.Image, kind: str = 'PNG', **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 255 // height, x * 255 // width, (x + y) * 255 // (height + width)], -1).astype(np.uint8)


def test_an_image_of_the_right_size_is_unchanged(tmp_path):
    array = RNG.integers(0, 256, (32, 32, 3), np.uint8)
    image = PIL.Image.fromarray(array)
    image.save(tmp_path / 'x.png')
    data = encoded(image, 'WEBP', lossless=True)
    for given in (array, image, tmp_path / 'x.png', str(tmp_path / 'x.png'), data, [array], array[None]):
        frames = to_frames(given, 32)
        assert frames.dtype == np.uint8
        np.testing.assert_array_equal(frames, array[None])
    np.testing.assert_array_equal(np.asarray(decode(data)), array)


def test_crop_keeps_the_middle_and_squash_keeps_all():
    x = np.zeros((40, 80, 3), np.uint8)
    x[:, :20], x[:, 60:] = (255, 0, 0), (0, 0, 255)
    np.testing.assert_array_equal(to_frames(x, 40, 'crop')[0], 0)
    squashed = to_frames(x, 40, 'squash')[0]
    assert squashed[:, :9, 0].min() > 250 and squashed[:, 11:29].max() < 5 and squashed[:, 31:, 2].min() > 250


def test_a_video_is_its_frames_in_order(tmp_path):
    arrays = RNG.integers(0, 256, (3, 16, 16, 3), np.uint8)
    PIL.Image.fromarray(arrays[2]).save(tmp_path / 'x.png')
    frames = [arrays[0], encoded(PIL.Image.fromarray(arrays[1])), tmp_path / 'x.png']
    for video in (frames, tuple(frames), arrays):
        np.testing.assert_array_equal(to_frames(video, 16), arrays)
    mixed = to_frames([smooth(20, 40), smooth(40, 20)], 16)
    assert mixed.shape == (2, 16, 16, 3)


@pytest.mark.parametrize('height, width', [(16, 16), (15, 22)])
@pytest.mark.parametrize('side, places', [(2, QUARTERS), (3, NINTHS)])
def test_tiles_are_the_image_and_its_parts(height, width, side, places):
    array = RNG.integers(0, 256, (height, width, 3), np.uint8)
    whole, *parts = map(np.asarray, tiles(PIL.Image.fromarray(array), side))
    np.testing.assert_array_equal(whole, array)
    assert len(parts) == len(places)
    rows = [np.concatenate(parts[i : i + side], axis=1) for i in range(0, len(parts), side)]
    np.testing.assert_array_equal(np.concatenate(rows), array)
    assert to_frames(tiles(PIL.Image.fromarray(array), side), 16).shape == (1 + len(places), 16, 16, 3)


def test_of_an_animation_the_first_frame():
    first, second = (PIL.Image.new('RGB', (8, 8), colour) for colour in ('red', 'blue'))
    animation = encoded(first, 'WEBP', save_all=True, append_images=[second], lossless=True)
    np.testing.assert_array_equal(to_frames(animation, 8), np.full((1, 8, 8, 3), (255, 0, 0)))


@pytest.mark.parametrize('height, width', [(50, 100), (100, 50), (1, 300), (7, 14)])
def test_aspect_is_kept_and_the_mean_is_padded(height, width):
    (frame,) = to_frames(smooth(height, width), 64)
    tall, wide = max(1, round(height * 64 / max(height, width))), max(1, round(width * 64 / max(height, width)))
    top, left = (64 - tall) // 2, (64 - wide) // 2
    inner = frame[top : top + tall, left : left + wide]
    outside = np.ones((64, 64), bool)
    outside[top : top + tall, left : left + wide] = False
    np.testing.assert_array_equal(frame[outside], np.broadcast_to(np.round(inner.mean((0, 1))), (outside.sum(), 3)))
    if min(height, width) > 32:
        assert np.abs(inner.astype(int) - smooth(tall, wide)).mean() < 8


def test_resizing_is_antialiased():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(to_frames(stripes, 32).astype(int) - 127).max() < 12


def test_transparent_parts_and_their_padding_are_white():
    array = np.zeros((20, 40, 4), np.uint8)
    array[5:15, 10:30] = (200, 0, 0, 255)
    palette = PIL.Image.fromarray(array).quantize(8)
    grey = PIL.Image.fromarray(array).convert('LA')
    for given in (array, PIL.Image.fromarray(array), encoded(palette), encoded(grey)):
        (frame,) = to_frames(given, 40)
        assert (frame[:12] == 255).all() and (frame[-12:] == 255).all() and (frame[:, :8] == 255).all()
        assert frame[20, 20, 1] < 100
    array[..., 3] = 255
    (frame,) = to_frames(array, 40)  # Opaque throughout: like an image without alpha.
    assert frame[0, 0, 1] == 0 and 0 < frame[0, 0, 0] < 200


def test_greyscale_sixteen_bit_and_cmyk():
    grey = np.tile(np.arange(16, dtype=np.uint8) * 17, (16, 1))
    expected = np.repeat(grey[None, :, :, None], 3, -1)
    sixteen = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    for given in (grey, PIL.Image.fromarray(grey), encoded(sixteen), sixteen):
        np.testing.assert_array_equal(to_frames(given, 16), expected)
    cmyk = encoded(PIL.Image.new('RGB', (8, 8), (250, 10, 10)).convert('CMYK'), 'JPEG', quality=100)
    assert np.abs(to_frames(cmyk, 8).astype(int) - (250, 10, 10)).max() < 8


def test_sixteen_bits_keep_their_orientation_and_transparency():
    grey = smooth(16, 16)[..., 0].astype(np.uint16) * 257
    exif = PIL.Image.Exif()
    exif[0x0112] = 3  # Upside down.
    clear = int(grey[3, 0])
    for options in (dict(exif=exif), dict(transparency=clear), dict(exif=exif, transparency=clear)):
        expected = np.where(grey == clear, 255, grey // 257) if 'transparency' in options else grey // 257
        expected = np.rot90(expected, 2) if 'exif' in options else expected
        (frame,) = to_frames(encoded(PIL.Image.fromarray(grey), **options), 16)
        np.testing.assert_array_equal(frame, np.repeat(expected[..., None], 3, -1))


@pytest.mark.parametrize('dtype', [np.int32, np.float32])
def test_pixels_of_unknown_white_are_refused(dtype):
    image = PIL.Image.fromarray(smooth(16, 16)[..., 0].astype(dtype))
    for given in (image, encoded(image, 'TIFF')):
        with pytest.raises(ImageError, match=r'frame 0 .* Give 8 or 16 bits'):
            to_frames([given], 16)
    portable = encoded(PIL.Image.fromarray(np.full((4, 4), 255 * 257, np.uint16)), 'PPM')  # PIL gives it as 32 bits.
    assert (to_frames(portable, 4) == 255).all()


def test_a_strip_that_would_be_resized_to_gigabytes_is_refused():
    strip = np.zeros((1, 2000), np.uint8)
    with pytest.raises(ImageError, match='2000 x 1 pixels. Cut it'):
        to_frames(strip, 224, 'crop')
    assert to_frames(strip[:, :1000], 224, 'crop').shape == (1, 224, 224, 3)


def test_orientation_is_applied():
    image = PIL.Image.fromarray(smooth(64, 64))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # To be turned clockwise by a quarter.
    turned = to_frames(encoded(image, 'JPEG', quality=100, exif=exif), 64)
    assert np.abs(turned[0].astype(int) - np.rot90(smooth(64, 64), -1)).max() < 12


def test_a_large_jpeg_equals_a_large_png():
    image = PIL.Image.fromarray(smooth(1500, 2000))
    jpeg, png = (to_frames(encoded(image, kind), 128).astype(int) for kind in ('JPEG', 'PNG'))
    assert np.abs(jpeg - png).max() < 8


def test_faults_name_the_image(tmp_path):
    data = encoded(PIL.Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)), 'JPEG')
    (tmp_path / 'short.jpg').write_bytes(data[:500])
    (tmp_path / 'text.png').write_text('not an image')
    for given, message in [
        (tmp_path / 'short.jpg', 'short.jpg cannot be decoded'),
        (tmp_path / 'text.png', 'text.png is not an image'),
        (b'', '0 bytes'),
        ([data, data[:500]], 'frame 1 of a video cannot be decoded'),
        ([data, tmp_path / 'text.png'], 'frame 1 of a video .*text.png'),
        ([], 'empty list'),
        (np.zeros((8, 8, 3), np.float32), 'array of dtype float32'),
        (np.zeros((8, 8, 2), np.uint8), r'shape \(8, 8, 2\)'),
        (np.zeros((0, 8, 3), np.uint8), r'shape \(0, 8, 3\)'),
    ]:
        with pytest.raises(ImageError, match=message):
            to_frames(given, 32)
    with pytest.raises(ImageError, match='cannot be decoded'):
        decode(data[:500])


def test_any_damage_is_an_image_error():
    image = PIL.Image.fromarray(smooth(40, 30))
    files = [encoded(image, kind) for kind in ('PNG', 'JPEG', 'WEBP', 'GIF', 'TIFF', 'BMP')]
    for content in files:
        for number in range(100):
            changed = bytearray(content)
            for position in RNG.integers(len(content), size=3):
                changed[position] ^= int(RNG.integers(1, 256))
            try:
                frames = to_frames(bytes(changed[: RNG.integers(len(content))] if number % 4 == 0 else changed), 16)
            except ImageError:
                continue
            assert frames.shape == (1, 16, 16, 3)


def test_what_the_disk_says_is_no_fault_of_the_image(tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'WAITS', ())
    (tmp_path / 'x.png').symlink_to('/proc/self/mem')  # A process has no first byte: reading it is EIO.
    for path, number in (('x.png', errno.EIO), ('none.png', errno.ENOENT), ('', errno.EISDIR)):
        for given in (tmp_path / path, str(tmp_path / path), [tmp_path / path]):
            with pytest.raises(OSError) as raised:
                to_frames(given, 32)
            assert raised.value.errno == number and raised.value.filename == str(tmp_path / path)


def test_an_image_that_pil_has_open_on_a_disk_that_fails(tmp_path):
    """PIL reads the pixels when they are asked for, and its own errors and the disk's are both OSErrors."""

    class Disk(io.BytesIO):
        failed = False

        def read(self, *size):
            if self.failed:
                raise OSError(errno.EIO, 'Input/output error')
            return super().read(*size)

    content = encoded(PIL.Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)))
    disk = Disk(content)
    image, disk.failed = PIL.Image.open(disk), True
    with pytest.raises(OSError, match='Errno 5'):
        to_frames(image, 32)
    with pytest.raises(ImageError, match='cannot be decoded'):
        to_frames(PIL.Image.open(io.BytesIO(content[:5000])), 32)


def test_too_little_memory_is_no_fault_of_the_image(tmp_path):
    PIL.Image.new('RGB', (8000, 8000)).save(tmp_path / 'large.png')
    script = (
        'import pathlib, resource, sys\n'
        'from flamingo_jax.inputs.images import to_frames\n'
        f'to_frames({str(tmp_path / "large.png")!r}, 16)\n'
        'used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()\n'
        'resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))\n'
        f'to_frames({str(tmp_path / "large.png")!r}, 16)\n'
    )
    ended = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1].startswith('MemoryError: There is not enough memory to decode /')
