"""What a number or a choice in a config may be: every config asks here, so that all refusals read alike."""

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from flamingo_jax.errors import UserError

RANGES = {
    'a whole number, 1 or more': lambda x: isinstance(x, numbers.Integral) and int(x) >= 1,
    'above 0': lambda x: 0 < x < math.inf,
    '0 or more': lambda x: 0 <= x < math.inf,
    'from 0 to 1': lambda x: 0 <= x <= 1,
    '0 or more and below 1': lambda x: 0 <= x < 1,
    'from 0 to 2^63 - 1': lambda x: 0 <= x < 2**63,  # The seeds that both JAX and NumPy take.
}


def require(where: str, config: ConfigDict | Mapping[str, Any], span: str, *fields: str) -> None:
    """UserError names the first of these fields whose number is not in a range of RANGES. NaN is in none."""
    for field in fields:
        if not RANGES[span](config[field]):
            raise UserError(f'{where}.{field} is {config[field]!r}. It must be {span}.'.removeprefix('.'))


def choose(where: str, config: ConfigDict | Mapping[str, Any], **choices: Iterable[str]) -> None:
    """UserError names the first of these fields that is none of its choices, which would be read as one of them."""
    for field, known in choices.items():
        *most, last = map(repr, known)
        if config[field] not in tuple(known):
            named = f'{where}.{field}'.removeprefix('.')
            raise UserError(f'{named} must be {", ".join(most)} or {last}, not {config[field]!r}.')
