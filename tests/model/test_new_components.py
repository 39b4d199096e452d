"""A new connector or bridge is one file. Here the file is this one; nothing else of the package is told of it."""

import dataclasses
import json
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.model.attention import as_array
from flamingo_jax.model.bridges.bridge import Bridge, BridgeConfig
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.connectors.connector import Connector, ConnectorConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.planning import flops

pytestmark = pytest.mark.usefixtures('quick_compilation')


@dataclasses.dataclass(frozen=True)
class MeanConfig(ConnectorConfig):
    """The mean of all features, as the one media token."""

    kind = 'mean'
    width: int = 16
    frames: int = 0
    projects: bool = True

    def media_tokens(self, spatial):
        return 1

    def module(self, out_width, dtype=jnp.float32, kernel='plain'):
        return Mean(self, out_width, dtype, kernel)

    def operations(self, r, s):
        return 0, 0


class Mean(Connector):
    def layers(self, latents, x, t):
        return x.mean(axis=1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class AddedConfig(BridgeConfig):
    """The media token of the image that a token sees is added to the text."""

    kind = 'added'
    every: int = 2
    first: int = 0
    acts_on_text = False

    def module(self, lm, media_width, dtype=jnp.float32, kernel='plain'):
        return Added()


class Added(Bridge):
    def setup(self):
        self.size = self.param('size', nn.with_logical_partitioning(nn.initializers.ones, ()), ())

    def keys_values(self, media):
        return ((media[:, None], media[:, None]),)

    def __call__(self, y, keys_values, mask):
        ((media, _),) = keys_values
        seen = as_array(mask, y.shape[1], media.shape[2]).astype(y.dtype)
        return y + self.size * jnp.einsum('blm,bmd->bld', seen, media[:, 0])


@pytest.fixture
def own(monkeypatch):
    """The files' modules, as if they were there."""
    for folder, config in (('connectors', MeanConfig), ('bridges', AddedConfig)):
        module = types.ModuleType(f'flamingo_jax.model.{folder}.{config.kind}')
        setattr(module, config.__name__, config)
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_a_new_connector_and_a_new_bridge_are_a_file_each(own, config, features, tokens):
    """They are stored, initialised, computed and counted; text before an image does not change."""
    whole = dataclasses.replace(config, resampler=MeanConfig(), xattn=AddedConfig())
    assert FlamingoConfig.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    assert (whole.media_tokens, whole.xattn_blocks) == (1, 2)
    model = Flamingo(whole)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))
    assert jax.tree.map(jnp.shape, params['xattn']) == dict(size=(2,))
    logits = jax.jit(model.logits)
    found, without = (np.asarray(logits(params, x, tokens)) for x in (jnp.asarray(features), None))
    before = np.asarray(model.phi(jnp.asarray(tokens))) == 0
    np.testing.assert_array_equal(found[before], without[before])
    assert (np.abs(found - without).max(axis=-1)[~before] > 1e-4).all()
    assert flops.resampler(whole, 1, 16).forward > 0 and flops.xattn_tokens(whole, 8, 1).forward == 0


def test_an_unknown_kind_is_named_with_those_that_there_are(config):
    with pytest.raises(ValueError, match="There is no 'added' in .*bridges. There are .*gated_xattn"):
        FlamingoConfig.from_json(config.to_json() | dict(xattn=dict(kind='added')))
