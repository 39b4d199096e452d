"""A published model as each module of `conversion/` gives it: `checkpoints/converted.py` makes a bundle of it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Params

FROZEN = 'The frozen {} of a Flamingo (`flamingo_jax.train`).'


class Converted(NamedTuple):
    """A published model, in the dtypes of its tensors."""

    config: FlamingoConfig
    params: Params  # Its component trees.
    tokenizer: Tokenizer | None  # None for a trunk, which reads no text.
    card: Mapping[str, Any]  # What its model card says (`checkpoints/model_card.py`).
    image_tag: str | Sequence[int] | None = None  # How the tokenizer writes <image>; None for a model that reads none.
    report: str = ''  # A line that says what was loaded from where.


def not_standardised(width: int) -> dict[str, np.ndarray]:
    """The mean and deviation of each output channel of a trunk whose features stay as they are."""
    return dict(mean=np.zeros(width, np.float32), std=np.ones(width, np.float32))
