"""One's own images in folders become an image set that training and evaluation read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `data` is a folder of builders beside the package, and not installed with it

from data import building  # noqa: E402
from data.own_images.build import Builder, Config  # noqa: E402
from flamingo_jax.inputs.images import ImageFormat, decode  # noqa: E402
from flamingo_jax.inputs.sources.array_record import open_split  # noqa: E402
from flamingo_jax.inputs.sources.image_set import ImageSet  # noqa: E402

SMALL = Config(name='full', size=32)


@pytest.fixture
def folder(tmp_path):
    """Two things with several images, one with a single one, and files that are none."""
    rng = np.random.default_rng(0)
    for name, number in (('great_tit', 7), ('robin', 3), ('wren', 1)):
        for i in range(number):
            file = tmp_path / 'birds' / name / f'{i}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(file)
    (tmp_path / 'birds/robin/copy.png').write_bytes((tmp_path / 'birds/robin/0.png').read_bytes())
    (tmp_path / 'birds/robin/notes.txt').write_text('not an image')
    (tmp_path / 'birds/robin/cut.png').write_bytes((tmp_path / 'birds/robin/0.png').read_bytes()[:200])
    return tmp_path / 'birds'


def test_folders_name_their_images(folder, tmp_path, caplog):
    built = building.build(Builder, SMALL, str(folder), str(tmp_path))
    splits = {split: ImageSet(str(built), split, ImageFormat(16)).images for split in ('train', 'test')}
    number = {
        split: {name: sum(p.names == {'en': name} for p in images) for name in ('great tit', 'robin', 'wren')}
        for split, images in splits.items()
    }
    together = {name: number['train'][name] + number['test'][name] for name in number['train']}
    assert together == {'great tit': 7, 'robin': 3, 'wren': 1}
    assert all(number['train'].values()) and number['test']['great tit'] and number['test']['robin']
    assert 'left out 2 files that are no images, such as cut.png' in caplog.text
    (tmp_path / 'other/empty').mkdir(parents=True)
    with pytest.raises(ValueError, match='has 0 images'):
        building.build(Builder, SMALL, str(tmp_path / 'other'), str(tmp_path), overwrite=True)
    assert len(ImageSet(str(built), 'train', ImageFormat(16)).images) == len(splits['train'])
    assert building.build(Builder, SMALL, str(folder), str(tmp_path), overwrite=True) == built
    assert [left.name for left in built.parent.iterdir()] == [built.name]


def test_images_of_one_thing_are_refused(folder, tmp_path):
    for other in ('robin', 'wren'):
        shutil.rmtree(folder / other)
    with pytest.raises(ValueError, match='has images of one thing'):
        building.build(Builder, SMALL, str(folder), str(tmp_path))


def test_an_image_is_in_one_split_alone_and_hidden_files_are_none(folder, tmp_path, caplog):
    (folder / '.thumbnails').mkdir()
    (folder / 'robin/@eaDir/0.png').mkdir(parents=True)
    first = next(file for file in (folder / 'great_tit').iterdir())
    for copy in ('.thumbnails/0.png', 'robin/@eaDir/0.png/SMALL.png', 'robin/._1.png', 'wren/tit.png', 'wren/1.png'):
        PIL.Image.effect_noise((20, 20), len(copy)).save(folder / copy)
    (folder / 'wren/tit.png').write_bytes(first.read_bytes())
    (folder / 'great tit').mkdir()  # The same name, once more.
    (folder / 'great tit/0.png').write_bytes(first.read_bytes())
    os.rename(folder / 'wren/1.png', os.fsencode(folder) + b'/wren/caf\xe9.png')
    built = building.build(Builder, SMALL, str(folder), str(tmp_path))
    shown = [
        (image.names['en'], images.frames(image).tobytes())
        for split in ('train', 'test')
        for images in [ImageSet(str(built), split, ImageFormat(16))]
        for image in images.images
    ]
    assert sorted(name for name, _ in shown) == ['great tit'] * 7 + ['robin'] * 3 + ['wren'] * 2
    assert len({frames for _, frames in shown}) == len(shown)
    assert 'tit.png (as ' in caplog.text
    os.mkdir(os.fsencode(folder) + b'/caf\xe9')
    with pytest.raises(ValueError, match='The name of the folder .*xe9.* is not UTF-8. Rename it'):
        building.build(Builder, SMALL, str(folder), str(tmp_path), overwrite=True)


def test_images_that_are_added_hardly_move_others(folder, tmp_path):
    def asked(name):
        built = building.build(Builder, SMALL, str(folder), str(tmp_path / name))
        opened = ImageSet(str(built), 'test', ImageFormat(16))
        return {opened.frames(image).tobytes() for image in opened.images}

    rng = np.random.default_rng(1)
    for i in range(40):
        PIL.Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(folder / f'great_tit/more{i}.png')
    before = asked('before')
    for i in range(3):
        PIL.Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(folder / f'great_tit/a{i}.png')
    after = asked('after')
    assert before <= after and 4 < len(before) < 16


def test_images_are_made_square_where_they_are_read(tmp_path):
    """In training as in `generate`: padded with their own mean, and those with transparency with white."""
    folder = tmp_path / 'things'
    for name, mode, colour in (('photograph', 'RGB', (90, 90, 90)), ('icon', 'RGBA', (90, 90, 90, 128))):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            PIL.Image.new(mode, (20 - i, 10), colour).save(folder / f'{name}/{i}.png')
    built = building.build(Builder, SMALL, str(folder), str(tmp_path))
    opened = ImageSet(str(built), 'train', ImageFormat(20))
    corner = {image.names['en']: int(opened.frames(image)[0, 0, 0, 0]) for image in opened.images}
    assert abs(corner['photograph'] - 90) < 8 and corner['icon'] == 255


def test_images_are_upright_and_as_bright_as_they_are(tmp_path):
    folder = tmp_path / 'things'
    for name in ('phone', 'deep', 'drawing'):
        (folder / name).mkdir(parents=True)
    turned = PIL.Image.Exif()
    turned[PIL.ExifTags.Base.Orientation] = 6  # A phone that was held upright.
    for i, grey in enumerate((60, 90)):
        photograph = PIL.Image.new('RGB', (30, 20), (grey,) * 3)
        photograph.save(folder / f'phone/{i}.jpg', exif=turned)
        photograph.save(folder / f'drawing/{i}.eps')
        PIL.Image.fromarray(np.full((30, 30), 257 * grey, np.uint16)).save(folder / f'deep/{i}.png')
    built = building.build(Builder, SMALL, str(folder), str(tmp_path))
    opened = ImageSet(str(built), 'train', ImageFormat(30))
    shown = {image.names['en']: opened.frames(image)[0, :, :, 0] for image in opened.images}
    assert shown.keys() == {'phone', 'deep'}  # An EPS file would be run as a program.
    assert (shown['deep'] < 100).all()
    assert (shown['phone'] < 100).all()
    (phone,) = (record for record in open_split(str(built), 'train') if record['names'] == [b'phone'])
    assert decode(phone['frames'][0]).size == (20, 30)  # It is upright.


def test_a_folder_of_another_form_is_refused(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    PIL.Image.new('RGB', (8, 8)).save(folder / 'robin.png')
    command = [sys.executable, '-m', 'data.own_images.build', f'--folder={folder}', f'--out={tmp_path}']
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f'error: {folder} has 0 images in 0 folders')
    assert not (tmp_path / 'own_images/full/1.0.0').exists()
