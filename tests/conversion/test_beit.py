"""Features of small random BEiTs, compared with transformers, and with what it gave once."""

import pathlib

import jax
import numpy as np
import pytest

from flamingo_jax.conversion.beit import beit_tensors, read_beit
from flamingo_jax.conversion.tensors import to_state, to_tree
from flamingo_jax.model.vision.beit import BEiT
from tests.golden.make_beit import KINDS, SIZES, images, random_state

TOLERANCE = 1e-4  # Relative to the largest feature.
GOLDEN = np.load(pathlib.Path(__file__).parents[1] / 'golden/beit.npz')


def features(config, params, size):
    return np.asarray(jax.jit(BEiT(config).apply)({'params': params}, images(size)))


def assert_close(ours, theirs):
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() < TOLERANCE


@pytest.mark.parametrize('kind', KINDS)
def test_gives_what_transformers_gave(kind):
    config = KINDS[kind]
    params = to_tree(beit_tensors(config, ''), random_state(config))
    for size in SIZES[kind]:
        assert_close(features(config, params, size), GOLDEN[f'{kind}_{size}'])


@pytest.mark.parametrize('kind', KINDS)
def test_a_tree_goes_back_to_the_same_file(kind):
    state = random_state(KINDS[kind])
    back = to_state(beit_tensors(KINDS[kind], ''), to_tree(beit_tensors(KINDS[kind], ''), state))
    assert back.keys() == state.keys()
    assert all((back[name] == state[name]).all() for name in state)


def test_refuses_another_model(tmp_path):
    (tmp_path / 'config.json').write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="model_type 'vit', which is not a BEiT.*Give a folder of transformers"):
        read_beit(str(tmp_path))


@pytest.mark.parity
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('model', ['BeitModel', 'BeitForImageClassification', 'BeitForMaskedImageModeling'])
def test_transformers(tmp_path, kind, model):
    transformers = pytest.importorskip('transformers')
    from tests.golden.make_beit import transformers_features, transformers_model

    theirs = transformers_model(KINDS[kind], getattr(transformers, model))
    theirs.save_pretrained(tmp_path)
    config, params = read_beit(str(tmp_path))
    assert config == KINDS[kind]
    for size in SIZES[kind]:
        assert_close(features(config, params, size), transformers_features(theirs, size))
