"""Each step is of one data set, in turn (table 3 row ii). The paper: 62.9, 7.8 below its base, which accumulates.

The same number of sequences of each data set takes twice the steps. The warm-up is as long, in sequences.
"""

from ml_collections import ConfigDict

from experiments.ablations import base


def get_config() -> ConfigDict:
    """Steps of one data set each."""
    c = base.get_config()
    c.round_robin = True
    c.steps = c.checkpoint_every = 2 * c.steps
    c.optimizer.warmup_steps *= 2
    return c
