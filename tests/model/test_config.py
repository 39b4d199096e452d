import dataclasses
import json
import sys
import types
from typing import ClassVar

import flax.linen as nn
import jax
import numpy as np
import pytest

from flamingo_jax.model.config import SIZES, FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.vision.nfnet import NFNET_F6
from flamingo_jax.model.vision.trunk import VisionConfig

pytestmark = pytest.mark.usefixtures('quick_compilation')


def test_json_and_back(config):
    parts = (dict(lm=config.lm), dict(vision=config.vision), dict(vision=NFNET_F6), dict())
    for one in (config, *(FlamingoConfig(**part) for part in parts)):
        back = FlamingoConfig.from_json(json.loads(json.dumps(one.to_json())))
        assert back == one and hash(back) == hash(one)  # It is static under jit: a list in it would not hash.


def test_a_trunk_says_of_which_family_it_is(config):
    assert FlamingoConfig(vision=NFNET_F6).to_json()['vision']['family'] == 'nfnet'
    fields = config.to_json()
    assert fields['vision'].pop('family') == 'efficientnet'
    assert FlamingoConfig.from_json(fields) == config  # A bundle that names none.
    fields['vision']['family'] = 'resnet'
    with pytest.raises(ValueError, match="no vision trunk of the family 'resnet'"):
        FlamingoConfig.from_json(fields)


def test_a_bundle_that_lacks_a_choice_has_the_papers(config):
    fields = config.to_json()
    assert fields['xattn'].pop('kind') == 'gated_xattn' and fields['resampler'].pop('kind') == 'perceiver'
    assert FlamingoConfig.from_json(fields) == config


def test_a_bundle_from_before_bridges_had_kinds_is_read(config):
    """One config had the flags of all."""
    flags = dict(only_at_tag=False, ffw_where_seen=False, norms_of_lm=False, prefix=False)
    fields = config.to_json()
    fields['lm']['embedding_width'] = 0
    del fields['xattn']['kind']
    for of, kind in (
        ({}, 'gated_xattn'),
        (dict(ffw_where_seen=True), 'selective_xattn'),
        (dict(prefix=True, only_at_tag=True, ffw_where_seen=True, every=1000), 'gated_prefix'),
    ):
        read = FlamingoConfig.from_json(fields | dict(xattn=fields['xattn'] | flags | of)).xattn
        assert read.kind == kind and read.initial_alpha == config.xattn.initial_alpha
        assert all(getattr(read, name, value) == value for name, value in of.items() if name != 'every')
    fields['lm']['embedding_width'] = 8
    with pytest.raises(ValueError, match='OPT-350m'):
        FlamingoConfig.from_json(fields)


def test_an_unknown_field_is_named(config):
    for part in (None, 'lm', 'vision', 'resampler', 'xattn'):
        fields = json.loads(json.dumps(config.to_json()))
        (fields[part] if part else fields)['wdith'] = 3
        with pytest.raises(ValueError, match=f'{part or "the model"}.*wdith'):
            FlamingoConfig.from_json(fields)


@pytest.mark.parametrize(
    'part, field, value, says',
    [
        ('lm', 'positions', 'rope2', "lm.positions must be 'rotary', 'learned', 'alibi' or 'relative', not 'rope2'"),
        ('lm', 'norm', 'batch', "lm.norm must be 'rms' or 'layer', not 'batch'"),
        ('lm', 'norm_place', 'after', "lm.norm_place must be .*, not 'after'"),
        ('lm', 'activation', 'mish', "lm.activation must be .*, not 'mish'"),
        ('lm', 'width', 0, 'lm.width is 0. It must be a whole number, 1 or more'),
        ('lm', 'depth', 0, 'lm.depth is 0'),
        ('resampler', 'activation', 'mish', "resampler.activation must be .*, not 'mish'"),
        ('resampler', 'latents', 0, 'resampler.latents is 0'),
        ('xattn', 'norm', 'batch', "xattn.norm must be .*, not 'batch'"),
        ('xattn', 'every', 0, 'xattn.every is 0'),
        (None, 'image_size', 0, 'image_size is 0'),
    ],
)
def test_what_a_field_cannot_be_is_refused(config, part, field, value, says):
    fields = config.to_json()
    (fields[part] if part else fields)[field] = value
    with pytest.raises(ValueError, match=says):
        FlamingoConfig.from_json(fields)


def test_cross_attention_needs_the_other_parts(config):
    with pytest.raises(ValueError, match='also needs: vision'):
        FlamingoConfig(lm=config.lm, xattn=config.xattn)
    with pytest.raises(ValueError, match='A model without a resampler needs'):
        dataclasses.replace(config, resampler=None)
    with pytest.raises(ValueError, match='has the width of the trunk, 24, not 16'):
        dataclasses.replace(config, resampler=dataclasses.replace(config.resampler, projects=False))
    with pytest.raises(ValueError, match="There is no 'average' in .*connectors. There are .*mlp, perceiver, pooling"):
        FlamingoConfig.from_json(config.to_json() | dict(resampler=dict(kind='average')))
    with pytest.raises(ValueError, match='only_at_tag needs an image_tag'):
        dataclasses.replace(config, image_tag=(), xattn=config.xattn.as_kind('selective_xattn', only_at_tag=True))
    with pytest.raises(ValueError, match='xattn.first is 3, but there are only 3 blocks'):
        dataclasses.replace(config, xattn=dataclasses.replace(config.xattn, first=3))


@pytest.mark.parametrize(
    'depth, every, blocks', [(24, 1, 24), (32, 4, 8), (40, 4, 10), (80, 7, 12), (3, 2, 2), (2, 3, 1)]
)
def test_gated_blocks_stand_before_every_kth(config, depth, every, blocks):
    """Tables 4 and 5 of the paper, and two small cases."""
    lm, xattn = dataclasses.replace(config.lm, depth=depth), dataclasses.replace(config.xattn, every=every)
    assert dataclasses.replace(config, lm=lm, xattn=xattn).xattn_blocks == blocks
    assert FlamingoConfig(lm=lm).xattn_blocks == 0


# Parameters of each component. The paper's sizes: 13 L D^2 + 32000 D of the language model, 12 D^2 of a gated block,
# the printed 194M of the resampler, NFNet-F6 without its classifier.
COUNTS = {
    'tiny': dict(lm=2_583_936, xattn=1_774_088, resampler=1_957_376, vision=3_413_024),
    '3b': dict(lm=13 * 24 * 2048**2 + 32_000 * 2048, xattn=24 * 12 * 2048**2, resampler=193.57e6, vision=435_286_116),
    '9b': dict(lm=13 * 32 * 4096**2 + 32_000 * 4096, xattn=8 * 12 * 4096**2, resampler=193.57e6, vision=435_286_116),
    '80b': dict(lm=13 * 80 * 8192**2 + 32_000 * 8192, xattn=12 * 12 * 8192**2, resampler=193.57e6, vision=435_286_116),
}


def test_parameter_counts_of_all_sizes():
    """Within 0.5 % of the paper's. Its resampler has no map to the language model's width, ours has one."""
    assert set(COUNTS) == set(SIZES)
    for size, expected in COUNTS.items():
        config = FlamingoConfig(**SIZES[size])
        shapes = jax.eval_shape(Flamingo(config).init, jax.random.key(0))
        counts = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in shapes.items()}
        if size != 'tiny':
            counts['resampler'] -= config.resampler.width * config.lm.width
        counts['vision'] -= 2 * config.vision.width  # The standardisation of the features is ours.
        assert set(counts) == set(expected)
        for name in counts:
            assert counts[name] == pytest.approx(expected[name], rel=5e-3), (size, name)
    assert round(sum(counts.values()) / 1e9, 1) == 80.4  # The paper's "80B".


@dataclasses.dataclass(frozen=True)
class Grid(VisionConfig):
    """A trunk that is no more than this: the mean colour of each quarter of an image."""

    family: ClassVar[str] = 'grid'

    width: ClassVar[int] = 3

    def spatial(self, image_size):
        return 4

    def operations(self, image_size):
        return 3.0 * image_size**2

    def trunk(self, dtype, name):
        return GridTrunk(name=name)


class GridTrunk(nn.Module):
    @nn.compact
    def __call__(self, images):
        b, height, width, _ = images.shape
        quarters = images.reshape(b, 2, height // 2, 2, width // 2, 3)
        return quarters.mean((2, 4)).reshape(b, 4, 3)


def test_a_new_trunk_is_one_file(config, tokens, monkeypatch):
    """Here the file is this one. Nothing else of the package is told of it."""
    module = types.ModuleType('flamingo_jax.model.vision.grid')
    module.Grid = Grid
    monkeypatch.setitem(sys.modules, module.__name__, module)
    whole = dataclasses.replace(config, vision=Grid())
    assert FlamingoConfig.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    model = Flamingo(whole)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))
    images = np.random.default_rng(0).integers(0, 256, (2, 2, 1, 16, 16, 3), np.uint8)
    logits = jax.jit(model.logits)(params, images, tokens)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(
        model.features(params, jax.numpy.asarray(images))[0, 0, 0, 0], images[0, 0, 0, :8, :8].mean((0, 1)), rtol=1e-5
    )
