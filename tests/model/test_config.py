import dataclasses
import json

import pytest

from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.vision.nfnet import NFNET_F6


def test_json_and_back(config):
    parts = (dict(lm=config.lm), dict(vision=config.vision), dict(vision=NFNET_F6), dict())
    for one in (config, *(FlamingoConfig(**part) for part in parts)):
        back = FlamingoConfig.from_json(json.loads(json.dumps(one.to_json())))
        assert back == one and hash(back) == hash(one)  # It is static under jit: a list in it would not hash.


def test_a_trunk_says_of_which_family_it_is(config):
    assert FlamingoConfig(vision=NFNET_F6).to_json()['vision']['family'] == 'nfnet'
    fields = config.to_json()
    assert fields['vision'].pop('family') == 'efficientnet'
    assert FlamingoConfig.from_json(fields) == config  # As bundles were written when there was one family.
    fields['vision']['family'] = 'resnet'
    with pytest.raises(ValueError, match="'resnet'. Known: .*'efficientnet', 'nfnet'"):
        FlamingoConfig.from_json(fields)


def test_an_unknown_field_is_named(config):
    for part in (None, 'lm', 'vision', 'resampler', 'xattn'):
        fields = json.loads(json.dumps(config.to_json()))
        (fields[part] if part else fields)['wdith'] = 3
        with pytest.raises(ValueError, match=f'{part or "the model"}.*wdith'):
            FlamingoConfig.from_json(fields)


def test_cross_attention_needs_the_other_parts(config):
    with pytest.raises(ValueError, match='vision, resampler'):
        FlamingoConfig(lm=config.lm, xattn=config.xattn)


@pytest.mark.parametrize(
    'depth, every, blocks', [(24, 1, 24), (32, 4, 8), (40, 4, 10), (80, 7, 12), (3, 2, 2), (2, 3, 1)]
)
def test_gated_blocks_stand_before_every_kth(config, depth, every, blocks):
    """Tables 4 and 5 of the paper, and two small cases."""
    lm, xattn = dataclasses.replace(config.lm, depth=depth), dataclasses.replace(config.xattn, every=every)
    assert dataclasses.replace(config, lm=lm, xattn=xattn).xattn_blocks == blocks
    assert FlamingoConfig(lm=lm).xattn_blocks == 0
