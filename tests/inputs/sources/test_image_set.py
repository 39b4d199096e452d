import dataclasses
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax import features, files
from flamingo_jax.checkpoints import bundle
from flamingo_jax.inputs import augment
from flamingo_jax.inputs.images import ImageError, ImageFormat
from flamingo_jax.inputs.sources import array_record, image_set
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.inputs.sources.features import fingerprint
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.inputs.sources.json_lines import JsonLines
from flamingo_jax.model.flamingo import Flamingo

SAMPLE = str(pathlib.Path(__file__).parents[3] / 'data/picture_dictionary/sample')


@pytest.fixture(scope='module')
def images():
    return ImageSet(SAMPLE, 'validation', ImageFormat(24))


def test_a_large_set_is_read_without_its_index_in_memory(monkeypatch):
    small = open_split(SAMPLE, 'validation')
    monkeypatch.setattr(array_record, 'LARGE', 10)
    large = open_split(SAMPLE, 'validation')
    assert len(large) == len(small) and large.source.data_source is not small.source.data_source
    for i in (0, 7, len(small) - 1):
        assert large[i]['frames'] == small[i]['frames'] and large[i]['concept'] == small[i]['concept']


def test_as_many_files_are_opened_as_a_data_set_has():
    """Each file that is read stays open. A process may open 1,024, as machines are set up, and mostly ask for more."""
    script = (
        'import pathlib, resource; from flamingo_jax.inputs.sources import array_record as a;'
        'resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard})); a._allow_files({files}, pathlib.Path("set"));'
        'print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])'
    )

    def run(**numbers):
        line = [sys.executable, '-c', script.format(**numbers)]
        return subprocess.run(line, cwd=pathlib.Path(SAMPLE).parents[2], capture_output=True, text=True)

    assert run(hard=900, files=600).stdout.strip() == '900'
    refused = run(hard=900, files=700).stderr
    assert 'set has 700 files, all of which are held open, but a process may open 900' in refused


def test_what_is_known_of_each_image(images):
    assert sum(map(len, images.by_concept.values())) == len(images.images) > 100
    for concept, of_concept in images.by_concept.items():
        assert len({image.style for image in of_concept}) == len(of_concept) == 4
        for image in of_concept:
            assert image.concept == concept and image.names['en'] == of_concept[0].names['en']
            assert image.heldout_languages <= set(image.names)
    assert len({image.index for image in images.images}) == len(images.images)


def test_pixels(images):
    frames = images.frames(images.images[3])
    assert frames.shape == images.blank.shape == (1, 24, 24, 3) and frames.dtype == images.blank.dtype == np.uint8
    assert frames.std() > 5 and not images.blank.any()
    assert images.encoded(images.images[3])[:4] == b'RIFF'


def test_styles_are_chosen(images):
    noto = ImageSet(SAMPLE, 'validation', ImageFormat(24), styles=('noto',))
    assert {image.style for image in noto.images} == {'noto'}
    assert len(noto.images) == len(images.by_concept)
    same = next(image for image in images.images if image.index == noto.images[2].index)
    assert same == noto.images[2]  # An index is a place in the split, whatever is kept of it.
    np.testing.assert_array_equal(noto.frames(noto.images[2]), images.frames(same))
    with pytest.raises(ValueError, match=r"no images of style \['ntoo'\]. Its styles are .*noto-v1"):
        ImageSet(SAMPLE, 'validation', ImageFormat(24), styles=('ntoo',))


def test_only_things_that_some_styles_show(monkeypatch):
    records = list(open_split(SAMPLE, 'validation'))
    dropped = sorted({record['concept'] for record in records})[:20]  # The sample's styles show the same things.
    records = [record for record in records if record['style'] != b'noto-v1' or record['concept'] not in dropped]
    monkeypatch.setattr(image_set, 'open_split', lambda path, split: records)
    both = ImageSet(SAMPLE, 'validation', ImageFormat(24), styles=('noto', 'noto-v1'), things_of=('noto-v1',))
    assert len(both.by_concept) == 30 and not set(both.by_concept) & {concept.decode() for concept in dropped}
    assert all(sorted(p.style for p in some) == ['noto', 'noto-v1'] for some in both.by_concept.values())
    with pytest.raises(ValueError, match=r"no images of style \['ntoo'\]"):
        ImageSet(SAMPLE, 'validation', ImageFormat(24), styles=('noto',), things_of=('ntoo',))


def test_no_such_data(tmp_path):
    with pytest.raises(ValueError, match="no split 'valid'; it has \\['test', 'train', 'validation'\\]"):
        ImageSet(SAMPLE, 'valid', ImageFormat(24))
    with pytest.raises(FileNotFoundError, match='does not exist. Prepare it'):
        ImageSet(str(tmp_path / 'nothing'), 'train', ImageFormat(24))
    with pytest.raises(FileNotFoundError, match='no dataset_info.json'):
        ImageSet(str(tmp_path), 'train', ImageFormat(24))


POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n'


def test_data_cut_at_the_end_of_a_block_are_refused(tmp_path):
    shutil.copytree(SAMPLE, tmp_path / 'set')
    file = tmp_path / 'set/picture_dictionary-train.array_record-00000-of-00001'
    content = file.read_bytes()
    for blocks in range(1, len(content) // array_record.BLOCK):
        file.write_bytes(content[: -blocks * array_record.BLOCK])
        with pytest.raises(ValueError, match='train.* is cut short'):
            open_split(tmp_path / 'set', 'train')


@pytest.mark.parametrize('damage', [lambda content: content[: len(content) // 2], lambda _: POINTER, lambda _: b''])
@pytest.mark.parametrize(
    'file, says',
    [
        ('picture_dictionary-validation.array_record-00000-of-00001', 'validation.* is cut short'),
        ('dataset_info.json', 'dataset_info.json or features.json cannot be read'),
        ('features.json', 'dataset_info.json or features.json cannot be read'),
    ],
)
def test_damaged_data_are_named_with_the_remedy(tmp_path, file, says, damage):
    shutil.copytree(SAMPLE, tmp_path / 'set')
    (tmp_path / 'set' / file).write_bytes(damage((tmp_path / 'set' / file).read_bytes()))
    with pytest.raises(ValueError, match=f'The data set .*set is damaged: .*{says}.*git lfs pull.*or prepare it again'):
        open_split(tmp_path / 'set', 'validation')


TRUNK = ImageFormat(24, 'pad', 4, 5, 'abc')


def write_features(folder, features, **about):
    np.save(folder / 'validation.npy', features)
    about = dict(data=fingerprint(open_split(SAMPLE, 'validation')), trunk='abc', image_size=24, fit='pad') | about
    (folder / 'validation.json').write_text(json.dumps(about))


def read_features(folder, image_format=TRUNK, **options):
    return ImageSet(SAMPLE, 'validation', image_format, features=str(folder), **options)


def test_features_stand_for_pixels(images, tmp_path):
    with pytest.raises(FileNotFoundError, match="no features of the split 'validation'.*flamingo_jax.features"):
        read_features(tmp_path)
    features = np.random.default_rng(0).standard_normal((len(images.images), 2, 1, 4, 5)).astype(np.float16)
    write_features(tmp_path, features)
    read = read_features(tmp_path, styles=('noto',))
    assert read.blank.shape == (1, 4, 5) and read.blank.dtype == np.float16 and read.views == 2
    for image in read.images[:3]:
        np.testing.assert_array_equal(read.frames(image), features[image.index, 0])
        np.testing.assert_array_equal(read.frames(image, view=1), features[image.index, 1])
        backward = dataclasses.replace(image, backward=True)
        np.testing.assert_array_equal(read.frames(backward), features[image.index, 0])


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_no_image(images, tmp_path, value):
    features = np.zeros((len(images.images), 1, 1, 4, 5), np.float16)
    features[3, 0, 0, 2, 1] = value
    write_features(tmp_path, features)
    read = read_features(tmp_path)
    by_index = {image.index: image for image in read.images}
    with pytest.raises(ImageError, match='features of image 3 in .*validation.npy are not finite'):
        read.frames(by_index[3])
    assert not read.frames(by_index[4]).any()


def test_features_that_are_cut_short_are_an_error_and_no_image(images, tmp_path, monkeypatch):
    """Were the file mapped, the process would be killed."""
    monkeypatch.setattr(files, 'WAITS', ())
    write_features(tmp_path, np.zeros((len(images.images), 1, 1, 4, 5), np.float16))
    read = read_features(tmp_path)
    os.truncate(tmp_path / 'validation.npy', 4096)
    with pytest.raises(OSError, match=r'The file ends before byte .*validation.npy'):
        read.frames(read.images[-1])


@pytest.mark.parametrize('damage', ['changed', 'cut', 'gone'])
def test_records_that_cannot_be_read_say_where(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(files, 'WAITS', (0.0,))
    shutil.copytree(SAMPLE, tmp_path / 'set')
    records = pickle.loads(pickle.dumps(open_split(tmp_path / 'set', 'validation')))  # As a worker has them.
    (file,) = (tmp_path / 'set').glob('*validation*')
    content = file.read_bytes()
    if damage == 'changed':
        file.write_bytes(content[:1000] + bytes(len(content) - 1000))
    elif damage == 'cut':
        records[0]
        os.truncate(file, 100)
    else:
        file.rename(tmp_path / 'elsewhere')
    kind = FileNotFoundError if damage == 'gone' else OSError
    with pytest.raises(kind, match=r'Record 7 of \d+ cannot be read: .*/set'):
        records[7]
    if damage == 'gone':  # A disk that was away is read again when it is back.
        (tmp_path / 'elsewhere').rename(file)
        assert records[7]['concept'] == open_split(SAMPLE, 'validation')[7]['concept']


def test_the_first_view_of_an_image_is_itself(parts, images, tmp_path):
    trunk = bundle.read(parts / 'trunk')
    features.compute(SAMPLE, trunk, str(tmp_path), ['validation'], views=3)
    made = np.load(tmp_path / 'validation.npy')
    model, params = Flamingo(trunk.config), {'vision': trunk.params('vision')}
    source = ImageSet(SAMPLE, 'validation', ImageFormat.of(trunk.config, trunk.checksums['vision']))
    assert made.shape[:2] == (len(source.images), 3)
    for image in (source.images[0], source.images[-1]):
        frames, i = source.frames(image), image.index
        views = [frames, *(augment.view(frames, np.random.default_rng((i, number))) for number in (1, 2))]
        expected = model.features(params, jnp.asarray(np.stack(views)[:, None]))[:, 0]
        np.testing.assert_allclose(made[i], expected, rtol=2e-3, atol=2e-3)


def test_features_are_mapped_by_each_worker_and_not_sent_to_it(images, tmp_path):
    features = np.zeros((len(images.images), 40, 1, 4, 5), np.float16)
    features[3] = 7
    write_features(tmp_path, features)
    read = read_features(tmp_path)
    sent = pickle.dumps(read)
    assert len(sent) - len(pickle.dumps(images)) < 10_000 < features.nbytes
    np.testing.assert_array_equal(pickle.loads(sent).frames(read.images[3]), features[3, 0])


def test_a_clip_plays_backward_from_its_first_frame(images, tmp_path, monkeypatch):
    records = [record | dict(frames=list(record['frames']) * 8) for record in open_split(SAMPLE, 'validation')]
    monkeypatch.setattr(image_set, 'open_split', lambda path, split: records)  # The sample has no clips.
    clip = np.arange(8).reshape(1, 1, 8, 1, 1).astype(np.float16).repeat(len(records), axis=0)
    write_features(tmp_path, clip, data=fingerprint(records))
    one = ImageFormat(24, 'pad', 1, 1, 'abc')
    read = read_features(tmp_path, one, frames=8)
    backward = dataclasses.replace(read.images[0], backward=True)
    assert read.frames(backward).ravel().tolist() == [0, 7, 6, 5, 4, 3, 2, 1]
    still = read_features(tmp_path, one, frames=8, stills=True)
    assert still.frames(still.images[0]).ravel().tolist() == [0] and still.blank.shape == (1, 1, 1)
    with pytest.raises(ValueError, match=r'have the shape \(8, 1, 1\).*, not \(4, 1, 1\)'):
        read_features(tmp_path, one, frames=4)


@pytest.mark.parametrize(
    'about, says',
    [
        (dict(data='another'), 'of another data set'),
        (dict(trunk='abd'), 'another trunk'),
        (dict(image_size=32), 'image_size is 32, not 24'),
        (dict(fit='crop'), 'fit is crop, not pad'),
        (dict(vision=dict(activation='gelu')), 'another trunk'),
    ],
)
def test_features_of_something_else_are_refused(images, tmp_path, about, says):
    write_features(tmp_path, np.zeros((len(images.images), 1, 1, 4, 5), np.float16), **about)
    format = dataclasses.replace(TRUNK, vision='{"activation": "relu"}')
    with pytest.raises(ValueError, match=f'{says}.*Compute them again'):
        read_features(tmp_path, format)


@pytest.mark.parametrize('text', ['', '{"data": 1', '[]', '{"data": "a"}'])
def test_damaged_features_are_refused(images, tmp_path, text):
    write_features(tmp_path, np.zeros((len(images.images), 1, 1, 4, 5), np.float16))
    (file,) = tmp_path.glob('*.json')
    file.write_text(text)
    with pytest.raises(ValueError, match='json is damaged: .*Compute them again'):
        read_features(tmp_path)


@pytest.mark.parametrize('damage', [lambda content: content[:-4], lambda _: POINTER, lambda _: b'', None])
def test_features_that_are_cut_short_are_refused(images, tmp_path, damage):
    write_features(tmp_path, np.zeros((len(images.images), 1, 1, 4, 5), np.float16))
    file = tmp_path / 'validation.npy'
    file.write_bytes(damage(file.read_bytes())) if damage else file.unlink()
    with pytest.raises(ValueError, match='validation.npy is missing or damaged .*Compute them again'):
        read_features(tmp_path)


def test_features_of_fewer_images_are_refused(images, tmp_path):
    write_features(tmp_path, np.zeros((len(images.images) - 1, 1, 1, 4, 5), np.float16))
    with pytest.raises(ValueError, match='validation.npy has .* images. Compute them again'):
        read_features(tmp_path)


def test_features_need_a_trunk(parts, tmp_path):
    with pytest.raises(ValueError, match='lm has no vision trunk'):
        features.compute(SAMPLE, bundle.read(parts / 'lm'), str(tmp_path), ['validation'])


def test_a_fingerprint_tells_records_apart():
    records = [dict(name=str(i).encode(), frames=[bytes([i])]) for i in range(100)]
    same = fingerprint(records)
    assert fingerprint(records) == same != fingerprint(records[:-1])
    records[0]['frames'][0] = b'other'
    assert fingerprint(records) != same


def test_a_fingerprint_tells_every_edit_of_a_jsonl_file(tmp_path):
    """Whoever owns the file may edit it, and features of the old one would be of other images."""

    def written(number=300, second=''):
        lines = [f'[{{"image": "{i}.png"}}, "cat {i}"]' for i in range(number)]
        lines[38] = lines[38].replace('"cat', f'{second}"cat')
        (tmp_path / 'own.jsonl').write_text('\n'.join(lines))
        return fingerprint(JsonLines(tmp_path / 'own.jsonl'))

    for i in range(300):
        (tmp_path / f'{i}.png').write_bytes(b'1')
    same = written()
    assert written() == same
    assert same not in (written(299), written(second='{"image": "7.png"}, '))
    (tmp_path / '150.png').write_bytes(b'22')  # Mended, say.
    assert written() != same
