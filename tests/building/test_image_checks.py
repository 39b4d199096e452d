"""Whether images are kept, and which look alike."""

import io
import json
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from flamingo_jax.building import duplicates
from flamingo_jax.building.image_checks import LookError, as_words, distance, look_at
from flamingo_jax.building.rules import DEFAULT
from tests.building.web import encoded_image, story


def bomb(side: int) -> bytes:
    """A PNG that says it is so large, in a few bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', data) + chunk(b'IEND', b'')


def flat(colour, size=(100, 100)) -> bytes:
    made = io.BytesIO()
    PIL.Image.new('RGB', size, colour).save(made, 'PNG')
    return made.getvalue()


@pytest.mark.parametrize('format', ['PNG', 'JPEG', 'WEBP'])
def test_images_are_kept(format):
    look = look_at(encoded_image(1, 200, 100, format))
    assert look[:2] == (200, 100) and len(look.hash) == 32


def test_a_jpeg_with_a_preview_is_a_jpeg():
    photograph, made = PIL.Image.open(io.BytesIO(encoded_image(1, format='JPEG'))), io.BytesIO()
    photograph.save(made, 'MPO', save_all=True, append_images=[photograph.resize((100, 75))])
    assert PIL.Image.open(made).format == 'MPO'
    assert distance(as_words([look_at(made.getvalue()).hash]), look_at(encoded_image(1)).hash)[0] <= 12


@pytest.mark.parametrize(
    'data, rule',
    [
        (b'', 'image_empty'),
        (b'<!DOCTYPE html><h1>404</h1>', 'image_is_html'),
        (b'<?xml version="1.0"?><svg xmlns="..."></svg>', 'image_svg'),
        (b'garbage', 'image_unreadable'),
        (encoded_image(1, 63, 200), 'image_min_side'),
        (encoded_image(1, 310, 100), 'image_aspect'),
        (encoded_image(1, 100, 310), 'image_aspect'),
        (encoded_image(1, format='GIF'), 'image_formats'),
        (encoded_image(1)[:-2000], 'image_damaged'),
        (encoded_image(1, format='JPEG')[:2000], 'image_damaged'),
        (flat('red'), 'image_one_colour'),
        (bomb(60_000), 'image_max_pixels'),
        (bomb(11_000), 'image_max_pixels'),
        (b'\xff' * 20_000_001, 'image_max_bytes'),
    ],
)
def test_why_images_are_dropped(data, rule):
    with pytest.raises(LookError) as error:
        look_at(data)
    assert error.value.rule == rule


def test_copies_look_alike_and_others_do_not():
    looks = as_words([look_at(encoded_image(seed)).hash for seed in range(50)])
    for copy in (encoded_image(7, format='JPEG'), encoded_image(7, 400, 300), encoded_image(7, 200, 170, 'WEBP')):
        apart = distance(looks, look_at(copy).hash)
        assert apart.argmin() == 7 and apart[7] <= DEFAULT.benchmark_distance
        assert np.delete(apart, 7).min() > 3 * DEFAULT.benchmark_distance


def test_sixteen_bits_transparency_and_two_colours_of_one_grey():
    def look(image, **how):
        file = io.BytesIO()
        image.save(file, 'PNG', **how)
        return look_at(file.getvalue())

    colour = PIL.Image.open(io.BytesIO(encoded_image(5)))
    grey = np.asarray(colour.convert('L'))
    deep = look(PIL.Image.fromarray(grey.astype(np.uint16) * 257))
    assert distance(as_words([look(colour).hash]), deep.hash)[0] <= DEFAULT.benchmark_distance
    white = PIL.Image.new('RGBA', colour.size, 'white')
    white.paste(colour, (20, 20))
    clear = PIL.Image.new('RGBA', colour.size, (0, 0, 0, 0))  # What is transparent is black, and is seen as white.
    clear.paste(colour, (20, 20))
    assert distance(as_words([look(white).hash]), look(clear).hash)[0] <= 2
    halves = PIL.Image.new('RGB', (200, 150), (255, 0, 0))
    halves.paste((0, 130, 0), (100, 0, 200, 150))
    assert np.ptp(np.asarray(halves.convert('L'))) <= DEFAULT.image_one_colour
    look(halves)  # It is kept.


def test_texts_that_are_nearly_the_same_share_a_key():
    text = story(1, 200)
    changed = text.replace(text.split()[100], 'else', 1)
    assert set(duplicates.near_keys(text)) & set(duplicates.near_keys(changed))
    assert duplicates.near_keys(text) == duplicates.near_keys(text.upper())
    others = [set(duplicates.near_keys(story(seed, 200))) for seed in range(2, 40)]
    assert not any(set(duplicates.near_keys(text)) & other for other in others)


@pytest.mark.parametrize('alike', [1 / 3, 0.5, 0.75, 0.85])
def test_how_often_similar_texts_share_a_key(alike):
    """As the theory of MinHash says: one of 14 bands, of which all 8 hashes agree."""
    rng, hits, trials, n = np.random.default_rng(0), 0, 200, 100
    same = round(2 * n * alike / (1 + alike))
    for _ in range(trials):
        runs = rng.integers(0, 2**63, 2 * n - same, dtype=np.uint64)
        hits += bool(set(duplicates.keys_of_runs(runs[:n])) & set(duplicates.keys_of_runs(runs[n - same :])))
    expected = 1 - (1 - alike**8) ** 14
    assert abs(hits / trials - expected) < 4 * np.sqrt(0.25 / trials)


@pytest.mark.parametrize('name, content', [('q.json', '{"a": '), ('q.JSONL', '{"a": 1}\n{"a": ')])
def test_a_benchmark_that_cannot_be_read_is_named(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f'The benchmark .*{name} cannot be read'):
        duplicates.index_benchmarks([str(tmp_path)], DEFAULT, str(tmp_path / 'index.npz'))


def test_a_benchmark_in_another_charset_is_read(tmp_path):
    (tmp_path / 'q.json').write_bytes(json.dumps([story(5, 30), 'é'], ensure_ascii=False).encode('latin-1'))
    path = duplicates.index_benchmarks([str(tmp_path)], DEFAULT, str(tmp_path / 'index.npz'))
    assert duplicates.open_benchmarks(path).text(story(5, 30), 13)


def test_benchmarks_are_found_again(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'a.png').write_bytes(encoded_image(3))
    (tmp_path / 'questions.jsonl').write_text(json.dumps({'question': {'text': story(5, 30)}}) + '\n')
    path = duplicates.index_benchmarks([str(tmp_path)], DEFAULT, str(tmp_path / 'index.npz'))
    index = duplicates.open_benchmarks(path)
    assert index.image(look_at(encoded_image(3, format='JPEG')).hash, 12).endswith('a.png')
    assert not index.image(look_at(encoded_image(4)).hash, 12)
    assert index.text(f'{story(6)} {story(5, 30)} {story(7)}', 13)
    assert not index.text(story(6), 13)
    with pytest.raises(FileNotFoundError, match='has no images and no texts'):
        (tmp_path / 'empty').mkdir()
        duplicates.index_benchmarks([str(tmp_path / 'empty')], DEFAULT, path)
