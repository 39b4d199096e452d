import dataclasses
import json
import pathlib

import numpy as np
import pytest

from flamingo_jax.inputs.sources.picture_set import PictureSet

SAMPLE = str(pathlib.Path(__file__).parents[2] / 'data/picture_dictionary/sample')


@pytest.fixture(scope='module')
def pictures():
    return PictureSet(SAMPLE, 'validation', image_size=24)


def test_what_is_known_of_each_picture(pictures):
    assert sum(map(len, pictures.by_concept.values())) == len(pictures.pictures) > 100
    for concept, of_concept in pictures.by_concept.items():
        assert len({picture.style for picture in of_concept}) == len(of_concept) == 4
        for picture in of_concept:
            assert picture.concept == concept and picture.names['en'] == of_concept[0].names['en']
            assert picture.heldout_languages <= set(picture.names)
    assert len({picture.index for picture in pictures.pictures}) == len(pictures.pictures)


def test_pixels(pictures):
    frames = pictures.frames(pictures.pictures[3])
    assert frames.shape == pictures.blank.shape == (1, 24, 24, 3) and frames.dtype == pictures.blank.dtype == np.uint8
    assert frames.std() > 5 and not pictures.blank.any()
    assert pictures.encoded(pictures.pictures[3])[:4] == b'RIFF'


def test_styles_are_chosen(pictures):
    noto = PictureSet(SAMPLE, 'validation', styles=('noto',), image_size=24)
    assert {picture.style for picture in noto.pictures} == {'noto'}
    assert len(noto.pictures) == len(pictures.by_concept)
    same = next(picture for picture in pictures.pictures if picture.index == noto.pictures[2].index)
    assert same == noto.pictures[2]  # An index is a place in the split, whatever is kept of it.
    np.testing.assert_array_equal(noto.frames(noto.pictures[2]), pictures.frames(same))
    with pytest.raises(ValueError, match=r"no pictures of style \['ntoo'\]; it has .*noto-v1"):
        PictureSet(SAMPLE, 'validation', styles=('ntoo',))


def test_no_such_data(tmp_path):
    with pytest.raises(ValueError, match="no split 'valid'; it has \\['test', 'train', 'validation'\\]"):
        PictureSet(SAMPLE, 'valid')
    with pytest.raises(FileNotFoundError, match='does not exist. Prepare it'):
        PictureSet(str(tmp_path / 'nothing'), 'train')
    with pytest.raises(FileNotFoundError, match='no dataset_info.json'):
        PictureSet(str(tmp_path), 'train')


def test_features_stand_for_pixels(pictures, tmp_path):
    with pytest.raises(FileNotFoundError, match="No features of the split 'validation'.*flamingo_jax.features"):
        PictureSet(SAMPLE, 'validation', features=str(tmp_path))
    features = np.random.default_rng(0).standard_normal((len(pictures.pictures), 2, 1, 4, 5)).astype(np.float16)
    np.save(tmp_path / 'validation.npy', features)
    (tmp_path / 'validation.json').write_text(json.dumps(dict(records=len(features), trunk='abc')))
    read = PictureSet(SAMPLE, 'validation', features=str(tmp_path), styles=('noto',), trunk='abc')
    assert read.blank.shape == (1, 4, 5) and read.blank.dtype == np.float16
    for picture in read.pictures[:3]:
        np.testing.assert_array_equal(read.frames(picture), features[picture.index, 0])
        np.testing.assert_array_equal(read.frames(picture, view=1), features[picture.index, 1])
        backward = dataclasses.replace(picture, backward=True)
        np.testing.assert_array_equal(read.frames(backward), features[picture.index, 0])
    clip = np.arange(8).reshape(1, 1, 8, 1, 1).astype(np.float16).repeat(len(features), axis=0)
    np.save(tmp_path / 'validation.npy', clip)
    read = PictureSet(SAMPLE, 'validation', features=str(tmp_path), trunk='abc')
    backward = dataclasses.replace(read.pictures[0], backward=True)
    assert read.frames(backward).ravel().tolist() == [0, 7, 6, 5, 4, 3, 2, 1]
    still = PictureSet(SAMPLE, 'validation', features=str(tmp_path), stills=True)
    assert still.frames(still.pictures[0]).ravel().tolist() == [0] and still.blank.shape == (1, 1, 1)
    with pytest.raises(ValueError, match='another trunk'):
        PictureSet(SAMPLE, 'validation', features=str(tmp_path), trunk='abd')
    (tmp_path / 'validation.json').write_text(json.dumps(dict(records=3, trunk='abc')))
    with pytest.raises(ValueError, match='are of 3 pictures, the data set has'):
        PictureSet(SAMPLE, 'validation', features=str(tmp_path))
