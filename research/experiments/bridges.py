"""Bridges side by side: the same language model, trunk, data and steps, and another way from images to text.

    python -m flamingo_jax.convert efficientnet --image_size=160 --out=runs/trunk \
        --standardise=data/picture_dictionary/sample --styles=noto,noto-v1,fluent-flat
    python -m flamingo_jax.features --data=data/picture_dictionary/sample --vision=runs/trunk --out=runs/features
    python -m flamingo_jax.train --config=research/experiments/bridges.py:BRIDGE --workdir=runs/BRIDGE
    python -m flamingo_jax.evaluate --config=research/experiments/evaluate/bridges.py --workdir=DIR \
        --checkpoint=runs/BRIDGE --config.features=runs/features

All is in the repository. BRIDGE is one of these; its tokens are what an image costs in the text of the language model:

    paper     gated cross-attention of all text after an image                                  1 token
    tag       gated cross-attention of an image's tag alone                                     1 token
    llava     a prefix: each place of the trunk's output, projected by two linear maps          25 tokens
    resampler a prefix of the resampler's latents                                                8 tokens
    blip2     a prefix of a Q-Former's queries                                                   8 tokens

The recipe is the quickstart's: new words and English names. The language model is that of
experiments/picture_dictionary, which has also read questions about kinds, and whose context holds a prefix.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments import quickstart
from flamingo_jax import commands
from flamingo_jax.model.bridges.bridge import bridge_from
from flamingo_jax.model.connectors.connector import connector_from

AT_TAG = dict(kind='selective_xattn', only_at_tag=True)
# Tokens of an image's tag; the kinds of connector and bridge, with their fields.
BRIDGES = dict(
    paper=(1, 'perceiver', dict(kind='gated_xattn')),
    tag=(1, 'perceiver', AT_TAG),
    llava=(25, 'mlp', dict(kind='gated_prefix')),
    resampler=(8, 'perceiver', dict(kind='gated_prefix')),
    blip2=(8, 'qformer', dict(kind='gated_prefix')),
)


def put(c: ConfigDict, connector: str, **bridge: Any) -> None:
    """Gives a model of `c` another kind of connector and of bridge, which keep the fields that they share."""
    c.model.resampler = ConfigDict(connector_from(c.model.resampler.to_dict()).as_kind(connector).to_json())
    c.model.xattn = ConfigDict(bridge_from(c.model.xattn.to_dict()).as_kind(**bridge).to_json())


def get_config(bridge: str = 'paper') -> ConfigDict:
    """The quickstart's recipe with another bridge. ValueError: the bridge is not known."""
    tokens, connector, fields = commands.part(BRIDGES, bridge)
    c = quickstart.get_config()
    c.lm, c.vision = 'experiments/picture_dictionary', 'runs/trunk'
    put(c, connector, **fields)
    c.datasets.names.features = 'runs/features'
    c.datasets.names.length += (tokens - 1) * c.datasets.names.images
    return c
