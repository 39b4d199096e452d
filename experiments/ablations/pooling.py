"""One attention of the latents to the features in place of the Perceiver.

The paper has no such row. Its other resamplers are an MLP, the simplest, and a Transformer (table 3 row vi: 66.6 and
66.7, 4.1 and 4.0 below its base).
"""

from ml_collections import ConfigDict

from experiments.ablations import base


def get_config() -> ConfigDict:
    """Attention pooling."""
    c = base.get_config()
    c.model.resampler.kind = 'pooling'
    return c
