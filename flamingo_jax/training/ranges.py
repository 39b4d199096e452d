"""The ranges of the numbers in a config of training."""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from flamingo_jax.errors import UserError

RANGES = {
    'above 0': lambda x: 0 < x < math.inf,
    '0 or more': lambda x: 0 <= x < math.inf,
    'from 0 to 1': lambda x: 0 <= x <= 1,
    '0 or more and below 1': lambda x: 0 <= x < 1,
    'from 0 to 2^63 - 1': lambda x: 0 <= x < 2**63,  # The seeds that both JAX and NumPy take.
}


def require(where: str, config: ConfigDict | Mapping[str, Any], span: str, *fields: str) -> None:
    """ValueError names the first of these fields whose number is not in a range of RANGES. NaN is in none."""
    for field in fields:
        if not RANGES[span](config[field]):
            raise UserError(f'{where}.{field} is {config[field]}. It must be {span}.')
