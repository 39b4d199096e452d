"""Answers that are decoded together, one row each: the programs of the engine (`serving.py`)."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from flamingo_jax.inference import decode, search
from flamingo_jax.model.flamingo import Flamingo, Media, Params


class Rows(NamedTuple):
    """Answers that are decoded together. Rows do not share anything, and each is at a place of its own."""

    media: Media | None
    text: decode.Text
    token: Int[Array, 'b']  # The last one of each answer, which its text does not have yet.
    step: Int[Array, 'b']  # The number of its tokens.
    key: Key[Array, 'b']
    drawing: search.Drawing  # Of arrays [b].


class Size(NamedTuple):
    """The size of `Rows`."""

    rows: int
    places: int  # Of each row's cache.
    media: int  # Media tokens that each row may see.


@functools.partial(jax.jit, static_argnames=('model', 'banned', 'size'))
def begin(
    model: Flamingo,
    prompts: decode.Prompts,
    keys: Key[Array, 'b'],
    drawing: search.Drawing,
    banned: tuple[int, ...],
    size: Size,
) -> Rows:
    """Prompts that were read -> rows of their own, with the first token of each answer."""
    b = size.rows
    media, text = decode.after_prompt(model, prompts.media, prompts.text)
    if media is not None:

        def repeated(x, axis):
            return jnp.repeat(x, b // x.shape[axis], axis=axis)

        def whole(*parts):
            return jnp.concatenate([repeated(x, -4) for x in parts], axis=-2)

        real = None if media.real is None else (jnp.concatenate([repeated(x, 0) for x in media.real], axis=1),)
        media = _lengthen(Media(None, (jax.tree.map(whole, *media.keys_values),), real), size.media)
    steps = jnp.zeros(b, jnp.int32)
    token = _next(prompts.logits, keys, steps, drawing, banned)
    return Rows(media, decode.alone(text, size.places), token, steps + 1, keys, drawing)


@functools.partial(jax.jit, static_argnames=('model', 'banned'), donate_argnames='rows')
def step(model: Flamingo, params: Params, rows: Rows, live: Bool[Array, 'b'], banned: tuple[int, ...]) -> Rows:
    """One more token of each live row. The others have no tokens, and what they write is not used."""
    logits, text = decode.extend(model, params, rows.media, rows.text, rows.token[:, None], valid=live[:, None])
    token = _next(logits[:, 0], rows.key, rows.step, rows.drawing, banned)
    return rows._replace(text=text, token=token, step=rows.step + 1)


@functools.partial(jax.jit, donate_argnums=0)
def place(rows: Rows, new: Rows, where: Int[Array, 'c']) -> Rows:
    """Rows with new ones in some places."""
    return jax.tree.map(lambda x, some: x.at[(slice(None),) * _axis(x) + (where,)].set(some), rows, new)


@functools.partial(jax.jit, static_argnames='size')
def resize(rows: Rows, order: Int[Array, 'b'], size: Size) -> Rows:
    """These rows, in this order, in another size."""
    rows = jax.tree.map(lambda x: jnp.take(x, order, axis=_axis(x)), rows)
    valid = decode.lengthen(rows.text.valid, size.places, axis=-1)
    text = rows.text._replace(cache=_lengthen(rows.text.cache, size.places), valid=valid)
    return rows._replace(text=text, media=_lengthen(rows.media, size.media))


def _next(logits, keys, steps, drawing: search.Drawing, banned: tuple[int, ...]) -> Int[Array, 'b']:
    """The next token of each row. Each draws as it would in any other batch."""
    return search.next_token(search.ban(logits, banned), search.keys_of(keys, steps), drawing)


def _lengthen(keys_values: Any, length: int) -> Any:
    """Keys and values of so many tokens: the end is padded or cut."""
    return jax.tree.map(lambda x: decode.lengthen(x, length, axis=-2), keys_values)


def _axis(x: Array) -> int:
    """The axis of the rows: keys and values may have one for the blocks before it."""
    return x.ndim - 4 if x.ndim >= 4 else 0
