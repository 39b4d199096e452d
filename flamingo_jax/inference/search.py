"""Decoding methods: greedy, sampling, beam search; and the likelihood of given continuations.

Each method is a `Loop`. `answer` runs one as a single program; `write` runs it step by step.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from flamingo_jax.inference.decode import Prompts, Text, begin, extend, take
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.model.flamingo import Flamingo, Params

NEVER = np.float32(-1e30)  # Log-probability of a token that must not be chosen; finite, so that sums stay ordered.
AS_IT_IS = np.ones(1, np.float32)  # Temperatures: the model's own probabilities.


class Drawing(NamedTuple):
    """How a token is drawn (`Sampling`): numbers for all rows, or arrays of one for each."""

    temperature: Any = 0.0
    top_k: Any = 0
    top_p: Any = 1.0

    @classmethod
    def of(cls, sampling: Sampling) -> 'Drawing':
        """That of an answer."""
        return cls(sampling.temperature, sampling.top_k, sampling.top_p)


class Marks(NamedTuple):
    """Tokens with a meaning for an answer."""

    ends: tuple[int, ...]  # They end it.
    banned: tuple[int, ...] = ()  # Never written (an <image> tag, which would have no image).


def next_token(logits: Float[Array, 'b v'], keys: Key[Array, 'b'], drawing: Drawing) -> Int[Array, 'b']:
    """One token per row, by its own key and numbers. What no row asks for is not computed."""
    rows = logits.shape[:1]
    temperature, top_k, top_p = (jnp.broadcast_to(jnp.asarray(x), rows)[:, None] for x in drawing)

    def cut(logits):
        order = jnp.sort(logits, axis=-1)[:, ::-1]
        kth = jnp.take_along_axis(order, jnp.clip(top_k, 1, order.shape[1]) - 1, axis=1)
        among = (top_k == 0) | (order >= kth)
        p = jax.nn.softmax(order, axis=-1, where=among)
        kept = among & ((jnp.cumsum(p, axis=-1) - p < top_p) | (top_p == 1))  # The one that crosses the bound is kept.
        least = jnp.where(kept, order, jnp.inf).min(axis=-1, keepdims=True)
        return jnp.where(logits >= least, logits, NEVER)

    def draw(logits):
        logits = logits / jnp.where(temperature > 0, temperature, 1)
        logits = jax.lax.cond(((top_k > 0) | (top_p < 1)).any(), cut, lambda same: same, logits)
        return jnp.where(temperature[:, 0] > 0, jax.vmap(jax.random.categorical)(keys, logits), best)

    best = logits.argmax(axis=-1)
    return jax.lax.cond((temperature > 0).any(), draw, lambda _: best, logits).astype(jnp.int32)


def ban(logits: Float[Array, 'b v'], banned: tuple[int, ...]) -> Float[Array, 'b v']:
    """Logits by which these tokens are never chosen."""
    return logits.at[:, jnp.array(banned, jnp.int32)].set(NEVER)


def keys_of(keys: Key[Array, 'b'], steps: Int[Array, 'b'] | Int[Array, ''] | int) -> Key[Array, 'b']:
    """The key of each row's next token: of its own key and the number of its tokens, wherever the row stands."""
    return jax.vmap(jax.random.fold_in)(keys, jnp.broadcast_to(steps, keys.shape))


class Loop(NamedTuple):
    """A way to decode, as a loop over steps: `while more(state): state = one(state)`, from `first(text, logits)`."""

    first: Callable[[Text, Float[Array, 'b v']], Any]
    more: Callable[[Any], Bool[Array, '']]
    one: Callable[[Any], Any]
    tokens: Callable[[Any], Int[Array, 'b steps']]  # The best answer so far; -1 from its end on.


def answer(
    model: Flamingo, params: Params, prompts: Prompts, keys: Key[Array, '*b'], sampling: Sampling, marks: Marks
) -> Int[Array, 'b steps']:
    """The answer to each prompt, of up to `max_new_tokens`; ends when every row has ended.

    Beams are compared by summed log-probability / length ** length_penalty. A token that ends a hypothesis, and its
    position, count. At each step enough of the likeliest continuations are kept that `num_beams` live ones remain,
    however many end. The search ends when no live beam can beat the worst finished one.

    Args:
      model, params: may be unrolled (`unrolled.unroll`).
      prompts: from `Reader.read`.
      keys: of each row; or one, by which every row draws. A beam search needs none.

    Returns:
      The tokens; -1 from the one that ends a row on.
    """
    return _answer(model, params, prompts, keys, sampling.program, marks)


def write(
    model: Flamingo, params: Params, prompts: Prompts, keys: Key[Array, '*b'], sampling: Sampling, marks: Marks
) -> Iterator[Int[np.ndarray, 'b steps']]:
    """`answer`, one step at a time: the best tokens so far after each step, at last its result.

    Beams may replace what they gave before. Arguments as for `answer`; a generator that is closed stops there.
    """
    fixed = dict(model=model, sampling=sampling.program, marks=marks)
    shared, prompts = begun(model, prompts, fixed['sampling'])
    state, tokens, more = start(params, shared, keys, prompts, **fixed)
    yield np.asarray(tokens)
    while more:
        state, tokens, more = step(params, shared, keys, state, **fixed)
        yield np.asarray(tokens)


@functools.partial(jax.jit, static_argnames=('model', 'sampling', 'marks'))
def start(
    params: Params, shared: Any, keys: Any, prompts: Prompts, *, model: Any, sampling: Any, marks: Any
) -> tuple[Any, Any, Any]:
    """The loop's first state, with the best tokens so far and whether there is more to do; from what `begun` gives."""
    loop = _loop(model, params, shared, keys, sampling, marks)
    return _seen(loop, loop.first(prompts.text, prompts.logits))


@functools.partial(jax.jit, static_argnames=('model', 'sampling', 'marks'), donate_argnames='state')
def step(
    params: Params, shared: Any, keys: Any, state: Any, *, model: Any, sampling: Any, marks: Any
) -> tuple[Any, Any, Any]:
    """The next one."""
    loop = _loop(model, params, shared, keys, sampling, marks)
    return _seen(loop, loop.one(state))


def _seen(loop: Loop, state):
    return state, loop.tokens(state), loop.more(state)


@functools.partial(jax.jit, static_argnums=(0, 2))
def begun(model: Flamingo, prompts: Prompts, sampling: Sampling) -> tuple[Any, Prompts]:
    """What all steps read, which is the media and the prompt; and the text that grows, which is empty."""
    media, text = begin(model, prompts.media, prompts.text, sampling.num_beams, sampling.max_new_tokens)
    return (media, text.parts), Prompts(None, text._replace(parts=()), prompts.logits)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _answer(model, params, prompts: Prompts, keys, sampling: Sampling, marks: Marks) -> Int[Array, 'b steps']:
    shared, prompts = begun(model, prompts, sampling)
    loop = _loop(model, params, shared, keys, sampling, marks)
    return loop.tokens(jax.lax.while_loop(loop.more, loop.one, loop.first(prompts.text, prompts.logits)))


def _loop(model, params, shared, keys, sampling: Sampling, marks: Marks) -> Loop:
    def read(text, tokens):
        media, parts = shared
        logits, text = extend(model, params, media, text._replace(parts=parts), tokens)
        return logits[:, 0], text._replace(parts=())

    return _beams(read, sampling, marks) if sampling.num_beams > 1 else _sampling(read, keys, sampling, marks)


def _sampling(read, keys, sampling: Sampling, marks: Marks) -> Loop:
    """The loop without beams. read: (text, one more token of each row) -> logits after it, text."""
    steps, ends = sampling.max_new_tokens, jnp.array(marks.ends, jnp.int32)

    def look(step, logits, done, out):
        own = jnp.broadcast_to(keys, len(logits))
        token = next_token(ban(logits, marks.banned), keys_of(own, step), Drawing.of(sampling))
        done |= (token[:, None] == ends).any(axis=1)
        return token, done, out.at[:, step].set(jnp.where(done, -1, token))

    def more(state):
        step, _, _, done, _ = state
        return (step < steps) & ~done.all()

    def one(state):
        step, text, token, done, out = state
        logits, text = read(text, token[:, None])
        return step + 1, text, *look(step, logits, done, out)

    def first(text, logits):
        b = logits.shape[0]
        return jnp.int32(1), text, *look(0, logits, jnp.zeros(b, bool), jnp.full((b, steps), -1, jnp.int32))

    return Loop(first, more, one, lambda state: state[-1])


def _beams(read, sampling: Sampling, marks: Marks) -> Loop:
    """The loop of a beam search. read: as for `_sampling`."""
    ends, banned = (jnp.array(tokens, jnp.int32) for tokens in marks)
    steps, beams, length_penalty = sampling.max_new_tokens, sampling.num_beams, sampling.length_penalty
    looked_at = (1 + len(marks.ends)) * beams

    def more(state):
        step, _, _, _, live, _, finished, _ = state
        # A sum of log-probabilities can only fall. Divided by a positive power of the length, it is best at full
        # length.
        length = jnp.float32(steps) if length_penalty > 0 else step + 1.0
        return (step < steps) & (live[:, 0] / length**length_penalty > finished.min(axis=1)).any()

    def look(step, logits, live, live_tokens, finished, finished_tokens):
        # Banned tokens keep their share of the probability, as in transformers, so that beams compare as in the
        # originals.
        b, v = live.shape[0], logits.shape[-1]
        row = jnp.arange(b)[:, None]
        logp = jax.nn.log_softmax(logits, axis=-1).at[:, banned].set(NEVER).reshape(b, beams, v)
        score, choice = jax.lax.top_k((live[..., None] + logp).reshape(b, beams * v), looked_at)
        beam, token = choice // v, choice % v
        tokens = live_tokens[row, beam].at[:, :, step].set(token)
        stop = (token[..., None] == ends).any(axis=-1)

        ended = jnp.where(stop, score / (step + 1.0) ** length_penalty, NEVER)
        # As in the originals, a hypothesis may finish only from among the `beams` likeliest.
        ended = ended.at[:, beams:].set(NEVER)
        finished, kept = jax.lax.top_k(jnp.concatenate([finished, ended], axis=1), beams)
        ended_tokens = tokens.at[:, :, step].set(-1)
        finished_tokens = jnp.concatenate([finished_tokens, ended_tokens], axis=1)[row, kept]

        live, kept = jax.lax.top_k(jnp.where(stop, NEVER, score), beams)
        live_tokens, beam, token = tokens[row, kept], beam[row, kept], token[row, kept]
        return (row * beams + beam).reshape(-1), token.reshape(-1, 1), live, live_tokens, finished, finished_tokens

    def one(state):
        step, text, rows, token, *beams_so_far = state
        logits, text = read(take(text, rows), token)
        return step + 1, text, *look(step, logits, *beams_so_far)

    def first(text, logits):
        b = logits.shape[0]
        live = jnp.where(jnp.arange(beams) == 0, 0.0, NEVER) * jnp.ones((b, 1))  # At first only one beam counts.
        nothing = jnp.full((b, beams, steps), -1, jnp.int32)
        looked = look(0, jnp.repeat(logits, beams, axis=0), live, nothing, jnp.full((b, beams), NEVER), nothing)
        return jnp.int32(1), text, *looked

    def tokens(state):
        step, _, _, _, live, live_tokens, finished, finished_tokens = state
        # Beams still live after the last step compete too.
        scores = jnp.concatenate([finished, live / jnp.maximum(step, 1.0) ** length_penalty], axis=1)
        tokens = jnp.concatenate([finished_tokens, live_tokens], axis=1)
        return tokens[jnp.arange(scores.shape[0]), scores.argmax(axis=1)]

    return Loop(first, more, one, tokens)


@functools.partial(jax.jit, static_argnames='model')
def score(
    model: Flamingo,
    params: Params,
    prompts: Prompts,
    candidates: Int[Array, 'b c l'],
    valid: Bool[Array, 'b c l'],
    temperatures: Float[Array | np.ndarray, 't'] = AS_IT_IS,
) -> Float[Array, 't b c']:
    """Log-likelihood of each candidate continuation of each row (close-ended tasks; paper, appendix A.2).

    Args:
      prompts: from `Reader.read`.
      candidates, valid: tokens, padded on the right.
      temperatures: logits are divided by each. All are computed from one pass of the model.
    """
    (media, text, logits), (b, c, l) = prompts, candidates.shape
    if l > 1:
        media, text = begin(model, media, text, c, l - 1)
        after, _ = extend(model, params, media, text, candidates[:, :, :-1].reshape(b * c, l - 1))
        after = after.reshape(b, c, l - 1, -1)

    def at(temperature):
        logp = jax.nn.log_softmax(logits / temperature)[:, None]
        first = jnp.take_along_axis(logp, candidates[:, :, :1], axis=2)[..., 0]
        total = jnp.where(valid[..., 0], first, 0.0)
        if l > 1:
            logp = jax.nn.log_softmax(after / temperature)
            logp = jnp.take_along_axis(logp, candidates[:, :, 1:, None], axis=3)[..., 0]
            total += jnp.where(valid[..., 1:], logp, 0.0).sum(axis=-1)
        return total

    return jax.lax.map(at, jnp.asarray(temperatures))  # One after another: logits are large.


class Likelihoods(NamedTuple):
    """Natural logarithms of the probabilities of an answer's tokens, each given all before it."""

    written: Float[Array, 'l']
    likeliest: Int[Array, 'l k']  # Tokens, the likeliest first.
    their: Float[Array, 'l k']


@functools.partial(jax.jit, static_argnames=('model', 'k'))
def likelihoods(model: Flamingo, params: Params, prompt: Prompts, answer: Int[Array, 'l'], k: int) -> Likelihoods:
    """What `score` sums for one prompt and one candidate, token by token, beside the k likeliest tokens at each place.

    Args:
      prompt: from `Reader.read`. Its rows are one prompt: a mesh that shards rows has several.
      answer: tokens, padded on the right; values at padding have no meaning.
    """
    (media, text, logits), (l,) = prompt, answer.shape
    logp = jax.nn.log_softmax(logits[:1])
    if l > 1:
        media, text = begin(model, media, text, 1, l - 1)
        after, _ = extend(model, params, media, text, jnp.broadcast_to(answer[:-1], (len(logits), l - 1)))
        logp = jnp.concatenate([logp, jax.nn.log_softmax(after[0])])
    their, likeliest = jax.lax.top_k(logp, k)
    return Likelihoods(jnp.take_along_axis(logp, answer[:, None], axis=1)[:, 0], likeliest, their)
