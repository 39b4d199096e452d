"""The answer of a trunk's own classifier, kept as one more place of its features."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.checkpoints import bundle
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import vision_trunks
from flamingo_jax.conversion.readers import read_weights
from flamingo_jax.conversion.trunk import alone, as_model
from flamingo_jax.conversion.vision_trunks import CLASSIFIER, efficientnet_lite0_file
from flamingo_jax.inputs.augment import mirror
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.model.config import TINY, FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo
from tests import tiny_run

SIZE = 64  # 2 x 2 places.


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(0).integers(0, 256, (1, 3, 1, SIZE, SIZE, 3), np.uint8)


def features_of(made, images):
    return np.asarray(jax.jit(Flamingo(made.config).features)(made.params, images))


def test_the_last_place_is_the_published_classifier_of_the_mean_of_the_others(images):
    without = features_of(as_model(vision_trunks.efficientnet(''), SIZE), images)
    made = as_model(vision_trunks.efficientnet('', classifier=True), SIZE)
    found = features_of(made, images)
    assert found.shape == (1, 3, 1, 5, 1280) and made.config.vision.places(SIZE) == 5
    np.testing.assert_allclose(found[..., :4, :], without, atol=1e-5)
    weights, bias = (np.asarray(read_weights(efficientnet_lite0_file())[name]) for name in CLASSIFIER)
    logits = without[0, :, 0].mean(1) @ weights.T + bias
    expected = (logits - logits.mean(1, keepdims=True)) / logits.std(1, keepdims=True)
    np.testing.assert_allclose(found[0, :, 0, 4, :1000], expected, atol=1e-3)
    assert not found[..., 4, 1000:].any()


def test_a_bundle_keeps_it_and_standardisation_leaves_it_alone(tmp_path, images):
    how = dict(image_size=SIZE, standardise=tiny_run.SAMPLE, styles=['noto'])
    for name, classifier in (('with', True), ('without', False)):
        write(alone(vision_trunks.efficientnet), '', str(tmp_path / name), classifier=classifier, **how)
    found, without = (bundle.read(tmp_path / name) for name in ('with', 'without'))
    assert found.config.vision.classes == 1000 and not without.config.vision.classes
    trees = found.params('vision'), without.params('vision')
    for name in ('mean', 'std'):
        np.testing.assert_allclose(trees[0][name], trees[1][name], rtol=1e-5)
    both = [
        np.asarray(jax.jit(Flamingo(one.config).features)({'vision': tree}, images))
        for one, tree in zip((found, without), trees, strict=True)
    ]
    np.testing.assert_allclose(both[0][..., :4, :], both[1], atol=1e-3)
    np.testing.assert_allclose(both[0][..., 4, :1000].std(-1), 1, atol=1e-3)
    assert 'classifier of 1000 classes' in (tmp_path / 'with/README.md').read_text()
    # What the installed package has is left out of a bundle, and read again.
    params = {'vision': jax.tree.map(np.asarray, trees[0])}
    bundle.save(tmp_path / 'small', found.config, params, None, None, '', packaged_trunk=True)
    assert sum(file.stat().st_size for file in (tmp_path / 'small').rglob('*')) < 100_000
    jax.tree.map(np.testing.assert_array_equal, bundle.read(tmp_path / 'small').params('vision'), params['vision'])


def test_a_connector_reads_it(images):
    made = as_model(vision_trunks.efficientnet('', classifier=True), SIZE)
    model = Flamingo(dataclasses.replace(FlamingoConfig(**TINY), vision=made.config.vision, image_size=SIZE))
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))
    features = features_of(made, images)
    media = model.resampled(params, jnp.asarray(features))
    other = features.copy()
    other[..., -1, :] = other[..., -1, ::-1]
    assert not np.allclose(media, model.resampled(params, jnp.asarray(other)), atol=1e-3)


def test_a_mirrored_image_has_the_same_answer():
    frames = np.random.default_rng(0).normal(size=(2, 10, 3)).astype(np.float16)
    made = mirror(frames)
    np.testing.assert_array_equal(made[:, 9], frames[:, 9])
    np.testing.assert_array_equal(made[:, :9], mirror(frames[:, :9]))
    np.testing.assert_array_equal(made[:, :3], frames[:, 2::-1])
    with pytest.raises(ValueError, match='8 features do not form a square grid'):
        mirror(frames[:, :8])


def test_places_are_counted_wherever_features_are():
    without = vision_trunks.LITE0
    vision = dataclasses.replace(without, classes=1000)
    config = FlamingoConfig(vision=vision, image_size=SIZE)
    assert FlamingoConfig.from_json(config.to_json()) == config
    assert ImageFormat.of(config).blank(1, features=True).shape == (1, 5, 1280)
    assert config.media_tokens == 5 and FlamingoConfig(vision=without, image_size=SIZE).media_tokens == 4


def test_what_cannot_be_kept_is_refused(tmp_path):
    state = dict(read_weights(efficientnet_lite0_file()))
    del state['_fc.bias']
    with pytest.raises(ValueError, match=r"no classifier: \['_fc.bias'\] are missing"):
        vision_trunks.classifier_params(state, CLASSIFIER, '')
    with pytest.raises(ValueError, match='Random weights have no classifier'):
        vision_trunks.efficientnet('', random_seed=0, classifier=True)
    with pytest.raises(ValueError, match='2000 classes of the trunk do not fit its width of 1280'):
        FlamingoConfig(vision=dataclasses.replace(vision_trunks.LITE0, classes=2000))
