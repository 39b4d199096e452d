"""The fields of a request that say how it is answered."""

import dataclasses
import secrets
from collections.abc import Mapping
from typing import Any

from flamingo_jax.errors import UserError
from flamingo_jax.inference.sampling import GREEDY, Sampling
from flamingo_jax.serving.requests import require_numbers

CHOICES, LIKELIEST, STOPS = 16, 20, 16  # Most of each.
BOUNDS = dict(
    max_tokens=(int, 1, 2**16), temperature=(float, 0, 10), top_p=(float, 1e-6, 1), top_k=(int, 0, 2**31 - 1),
    num_beams=(int, 1, 10), seed=(int, -(2**63), 2**63 - 1), n=(int, 1, CHOICES), top_logprobs=(int, 0, LIKELIEST),
    logprobs=(int, 0, LIKELIEST),
)  # fmt: skip
# Fields that change nothing here, and fields that would: they may have the value that changes nothing.
IGNORED = {'user', 'metadata', 'store', 'service_tier', 'safety_identifier', 'prompt_cache_key'}
ASKED = {
    *('model', 'messages', 'prompt', 'memory', 'stream', 'stream_options', 'stop', 'max_completion_tokens'),
    'probability',
}
NEUTRAL = dict(
    presence_penalty=(0,), frequency_penalty=(0,), logit_bias=({},), response_format=({'type': 'text'},), tools=([],),
    tool_choice=('none', 'auto'), best_of=(1,), echo=(False,), suffix=('',), parallel_tool_calls=(True, False),
    modalities=(['text'],), repetition_penalty=(1,), min_p=(0,),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a request is answered.

    Attributes:
      sampling: of every choice, but for its length and its seed.
      seed: of the first choice; the others have those that follow.
      most: tokens of an answer, if the request says so.
      n: choices for each prompt.
      likeliest: tokens at each place that are told with their log-probabilities; None: no log-probabilities.
      stream: whether it is sent while it is written,
      usage: and then whether its last event has the number of tokens.
      probability: whether each answer is told with its probability.
    """

    sampling: Sampling
    seed: int
    most: int | None
    n: int
    likeliest: int | None
    stream: bool
    usage: bool
    probability: bool = False

    def of_choice(self, i: int, most: int) -> Sampling:
        """How choice i of a prompt is written, in at most `most` tokens."""
        seed = (self.seed + i + 2**63) % 2**64 - 2**63
        return dataclasses.replace(self.sampling, max_new_tokens=most, seed=seed)


def read_settings(asked: Mapping[str, Any], chat: bool) -> Settings:
    """The settings of a request.

    Args:
      chat: whether it is of /v1/chat/completions, where `logprobs` is true or false, and not a number.

    Raises:
      UserError: a field is not known or its value is not valid; the message names it.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    for name, value in given.items():
        if name not in BOUNDS.keys() | IGNORED | ASKED and value not in NEUTRAL.get(name, ()):
            known = f' other than {NEUTRAL[name][0]!r}' if name in NEUTRAL else ''
            raise UserError(f'{name}{known} is not supported. Leave it out.')
    if 'max_completion_tokens' in given:
        given['max_tokens'] = given['max_completion_tokens']
    wanted = given.pop('logprobs', False) if chat else False
    if not isinstance(wanted, bool):
        raise UserError('logprobs must be true or false. top_logprobs is the number of alternatives.')
    require_numbers({name: given[name] for name in BOUNDS if name in given}, BOUNDS)
    if 'top_logprobs' in given and not wanted:
        raise UserError('top_logprobs needs logprobs: true.')
    likeliest = given.get('top_logprobs', 0) if wanted else given.get('logprobs')
    stop = given.get('stop', [])
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or len(stop) > STOPS or not all(isinstance(one, str) and one for one in stop):
        raise UserError(f'stop must be a text that is not empty, or a list of at most {STOPS}.')
    stream, options = given.get('stream', False), given.get('stream_options', {})
    if not isinstance(stream, bool) or not isinstance(options, dict):
        raise UserError('stream must be true or false, and stream_options an object.')
    probability = given.get('probability', False)
    if not isinstance(probability, bool):
        raise UserError('probability must be true or false.')
    sampling = Sampling(
        num_beams=given.get('num_beams', 1),
        temperature=given.get('temperature', 0),
        top_k=given.get('top_k', 0),
        top_p=given.get('top_p', 1),
        stop=stop or GREEDY.stop,
    )
    seed = given.get('seed', secrets.randbits(31) if sampling.temperature else 0)
    most, n = given.get('max_tokens'), given.get('n', 1)
    usage = options.get('include_usage') is True
    return Settings(sampling, seed, most, n, likeliest, stream, usage, probability)
