"""One's own pictures in folders become a picture set that training and evaluation read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `data` is a folder of builders beside the package, and not installed with it

from data import building  # noqa: E402
from data.own_pictures.build import Builder, Config  # noqa: E402
from flamingo_jax.inputs.images import PictureFormat  # noqa: E402
from flamingo_jax.inputs.sources.picture_set import PictureSet  # noqa: E402

SMALL = Config(name='full', size=32)


@pytest.fixture
def folder(tmp_path):
    """Two things with several pictures, one with a single one, and files that are none."""
    rng = np.random.default_rng(0)
    for name, number in (('great_tit', 7), ('robin', 3), ('wren', 1)):
        for i in range(number):
            file = tmp_path / 'birds' / name / f'{i}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(file)
    (tmp_path / 'birds/robin/copy.png').write_bytes((tmp_path / 'birds/robin/0.png').read_bytes())
    (tmp_path / 'birds/robin/notes.txt').write_text('not a picture')
    (tmp_path / 'birds/robin/cut.png').write_bytes((tmp_path / 'birds/robin/0.png').read_bytes()[:200])
    return tmp_path / 'birds'


def test_folders_name_their_pictures(folder, tmp_path, caplog):
    built = building.build(Builder, SMALL, str(folder), str(tmp_path))
    splits = {split: PictureSet(str(built), split, PictureFormat(16)).pictures for split in ('train', 'test')}
    number = {
        split: {name: sum(p.names == {'en': name} for p in pictures) for name in ('great tit', 'robin', 'wren')}
        for split, pictures in splits.items()
    }
    assert number == dict(train={'great tit': 5, 'robin': 2, 'wren': 1}, test={'great tit': 2, 'robin': 1, 'wren': 0})
    assert 'left out 2 files that are no pictures, such as cut.png' in caplog.text
    (tmp_path / 'other/empty').mkdir(parents=True)
    with pytest.raises(ValueError, match='has 0 pictures'):
        building.build(Builder, SMALL, str(tmp_path / 'other'), str(tmp_path), overwrite=True)
    assert len(PictureSet(str(built), 'train', PictureFormat(16)).pictures) == 8
    assert building.build(Builder, SMALL, str(folder), str(tmp_path), overwrite=True) == built
    assert [left.name for left in built.parent.iterdir()] == [built.name]


def test_pictures_are_upright_and_as_bright_as_they_are(tmp_path):
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
    opened = PictureSet(str(built), 'train', PictureFormat(30))
    shown = {picture.names['en']: opened.frames(picture)[0, :, :, 0] for picture in opened.pictures}
    assert shown.keys() == {'phone', 'deep'}  # An EPS file would be run as a program.
    assert (shown['deep'] < 100).all()
    assert (shown['phone'][:, [0, -1]] > 200).all() and (shown['phone'][:, 5:25] < 100).all()  # It is upright.


def test_a_folder_of_another_form_is_refused(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    PIL.Image.new('RGB', (8, 8)).save(folder / 'robin.png')
    command = [sys.executable, '-m', 'data.own_pictures.build', f'--folder={folder}', f'--out={tmp_path}']
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f'error: {folder} has 0 pictures in 0 folders')
    assert not (tmp_path / 'own_pictures/full/1.0.0').exists()
