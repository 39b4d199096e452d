"""How an answer is written: what `generate`, `write` and the engine take, and where its bounds are checked."""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.tokenizer import EOC

# Field, kind, whether it is within its bounds (NaN is within none), and the bounds in words.
BOUNDS = (
    ('max_new_tokens', numbers.Integral, lambda x: x >= 1, 'whole and 1 or more'),
    ('num_beams', numbers.Integral, lambda x: x >= 1, 'whole and 1 or more; 1 is no beam search'),
    ('temperature', numbers.Real, lambda x: 0 <= x < math.inf, '0 or more, and finite; 0 is greedy'),
    ('top_k', numbers.Integral, lambda x: 0 <= x < 2**31, 'whole, 0 or more and below 2^31; 0 is all tokens'),
    ('top_p', numbers.Real, lambda x: 0 < x <= 1, 'above 0 and at most 1; 1 is all tokens'),
    ('length_penalty', numbers.Real, math.isfinite, 'a finite number; 0 is no penalty'),
)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How an answer is written; the default is greedy.

    Attributes:
      max_new_tokens: most tokens of the answer.
      num_beams: beam search if above 1 (paper: 3); not together with a temperature.
      temperature, top_k, top_p: sampling: of the k likeliest tokens, of the likeliest that together reach p (Holtzman
        et al. 2020).
      stop: texts before which the answer ends. <EOC> and <EOS> always end it.
      length_penalty: beams are compared by log-probability / length ** length_penalty.
      seed: of sampling, for all prompts or for each.

    Raises:
      UserError: a number is out of its bounds; the message names it.
    """

    max_new_tokens: int = 32
    num_beams: int = 1
    temperature: int | float = 0.0
    top_k: int = 0
    top_p: int | float = 1.0
    stop: Sequence[str] = (EOC,)
    length_penalty: int | float = 0.0
    seed: int | Sequence[int] = 0

    def __post_init__(self):
        for name, kind, within, must in BOUNDS:
            value = getattr(self, name)
            if not isinstance(value, kind) or not within(value):
                raise UserError(f'{name} is {value!r}. It must be {must}.')
            self._keep(name, int(value) if kind is numbers.Integral else float(value))
        if self.num_beams > 1 and self.temperature:
            raise UserError('Beam search and sampling exclude each other. Give num_beams or temperature, not both.')
        is_list = isinstance(self.stop, Sequence) and not isinstance(self.stop, str)
        if not is_list or not all(isinstance(mark, str) and mark for mark in self.stop):
            raise UserError(f'stop is {self.stop!r}. Give a sequence of texts that are not empty.')
        self._keep('stop', tuple(self.stop))
        several = isinstance(self.seed, Sequence | np.ndarray) and not isinstance(self.seed, str)
        seeds = tuple(self.seed) if several else (self.seed,)
        for one in seeds:
            if not isinstance(one, numbers.Integral) or not -(2**63) <= one < 2**63:
                raise UserError(f'seed is {one!r}. It must be a whole number of at most 64 bits.')
        self._keep('seed', tuple(map(int, seeds)) if several else int(self.seed))

    def _keep(self, name: str, value: Any) -> None:
        """One form of each value, so that equal settings are equal and can be hashed."""
        object.__setattr__(self, name, value)

    def keys(self, b: int) -> Key[Array, 'b']:
        """A key for each of b prompts. UserError if there is another number of seeds."""
        seeds = self.seed if isinstance(self.seed, tuple) else (self.seed,) * b
        if len(seeds) != b:
            raise UserError(f'There are {len(seeds)} seeds for {b} prompts. Give one seed, or one for each prompt.')
        return jnp.stack([jax.random.key(seed) for seed in seeds])

    @property
    def program(self) -> 'Sampling':
        """The same without what no program depends on, so that none is compiled anew for another seed."""
        return dataclasses.replace(self, stop=(), seed=0)


GREEDY = Sampling()
