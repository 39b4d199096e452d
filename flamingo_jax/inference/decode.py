"""Decoding with two caches, both explicit arguments and results.

    media   the pictures' keys and values in every gated block, computed once per prompt
    cache   the text's self-attention keys and values, which grow

`encode_pictures` runs the trunk and the resampler once per picture; `prefill` reads the prompt; `extend` adds tokens.
Prompts of different lengths are padded on the left, so that all rows write to the same place in the cache. Beams repeat
rows: this copies their caches, but not their media. Candidates branch off a row without a copy.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flamingo_jax.inference.unrolled import Unrolled, apart
from flamingo_jax.inputs.images import Frames
from flamingo_jax.model.flamingo import Flamingo, Media, Params
from flamingo_jax.model.language_model import KeysValues


class Text(NamedTuple):
    """The text read so far."""

    cache: KeysValues  # Each [depth b g p k] with p places; or a list over blocks.
    valid: Bool[Array, 'b p']  # Which places have a token (not padding, not free).
    end: Int[Array, '']  # The first free place.
    position: Int[Array, 'b']  # Position of each row's next token.
    phi: Int[Array, 'b']  # The image that each row's next token sees; 0 if only the tags see pictures.


def encode_pictures(model: Flamingo, params: Params, pictures: Sequence[Sequence[Frames]]) -> Media | None:
    """Pictures of each row -> keys and values of the media. Trunk and resampler run once per picture.

    Args:
      pictures: for each row its pictures, uint8 [t height width 3] or features [t s d_v]; t may differ between them.

    Returns:
      Media of b rows of n images, where n is the most pictures of a row, rounded up to a power of two to compile
      rarely; None if no row has a picture.
    """
    n = max(len(row) for row in pictures)
    if n == 0:
        return None
    n = 1 << (n - 1).bit_length()
    media = jnp.zeros((len(pictures) * n, model.config.media_tokens, model.config.media_width), model.dtype)
    devices = max(1, jax.sharding.get_abstract_mesh().size)  # Of the current mesh (`parallel.rules.activations`).
    by_shape: dict[tuple, list[tuple[int, Frames]]] = {}
    for i, row in enumerate(pictures):
        for j, picture in enumerate(row):
            by_shape.setdefault(picture.shape, []).append((i * n + j, picture))
    for group in by_shape.values():
        while group:  # Powers of two: few programs, and no padding pictures.
            size = min(64, 1 << (len(group).bit_length() - 1))
            places, frames = zip(*group[:size], strict=True)
            frames += frames[-1:] * (-size % devices)  # Whole pictures on each device.
            media = media.at[jnp.array(places)].set(_resample(model, params, np.stack(frames)[:, None])[:size])
            group = group[size:]
    return _keys_values(model, params, Media(media.reshape(len(pictures), -1, media.shape[-1]), None))


@functools.partial(jax.jit, static_argnums=0)
def _resample(model: Flamingo, params: Params, images: Array) -> Float[Array, 'b r d']:
    return model.media(params, images).tokens


_keys_values = jax.jit(Flamingo.keys_values, static_argnums=0)


def prefill(
    model: Flamingo,
    params: Params,
    media: Media | None,
    tokens: Int[Array, 'b l'],
    valid: Bool[Array, 'b l'],
    room: int,
) -> tuple[Float[Array, 'b v'], Text]:
    """Reads prompts, which are padded on the left.

    Args:
      media: from `encode_pictures`.
      tokens, valid: the prompts; valid is False on padding.
      room: the number of tokens that can be added later.

    Returns:
      float32 logits of the token after each prompt, and the text.
    """
    b, l = tokens.shape
    text = Text(
        model.empty_cache(b, l + room),
        jnp.zeros((b, l + room), bool),
        jnp.zeros((), jnp.int32),
        jnp.zeros((b,), jnp.int32),
        jnp.zeros((b,), jnp.int32),
    )
    phi = model.phi(jnp.where(valid, tokens, -1))
    logits, text = _advance(model, params, media, text=text, tokens=tokens, valid=valid, phi=phi, last_only=True)
    return logits[:, 0], text


def extend(
    model: Flamingo, params: Params, media: Media | None, text: Text, tokens: Int[Array, 'b l']
) -> tuple[Float[Array, 'b l v'], Text]:
    """Adds tokens without <image> tags to each row -> (logits after each of them, the new text)."""
    phi = jnp.broadcast_to(text.phi[:, None], tokens.shape)
    return _advance(model, params, media, text=text, tokens=tokens, valid=jnp.ones(tokens.shape, bool), phi=phi)


def branch(
    model: Flamingo, params: Params, media: Media | None, text: Text, tokens: Int[Array, 'b c l']
) -> Float[Array, 'b c l v']:
    """Logits after each token of c continuations of each row. They read the row's text, but not one another.

    They are side by side in one sequence with a mask. Attention costs places * c * l per row, so give few at a time.
    """
    b, c, l = tokens.shape
    places = text.valid.shape[1]
    cache = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, c * l), (0, 0))), text.cache)
    which, at = jnp.divmod(jnp.arange(c * l), l)
    itself = (which[:, None] == which) & (at[:, None] >= at)
    mask = jnp.concatenate(
        [
            jnp.broadcast_to(text.valid[:, None], (b, c * l, places)),
            jnp.broadcast_to(itself, (b, c * l, c * l)),
        ],
        axis=2,
    )
    positions = text.position[:, None] + at
    key_positions = jnp.concatenate([_positions_of(text.valid), positions], axis=1)
    phi = jnp.broadcast_to(text.phi[:, None], positions.shape)
    y = model.embed(params, tokens.reshape(b, c * l))
    y, _ = model.decoder(
        params, y, positions, mask=mask, media=media, phi=phi, cache=cache, index=places, key_positions=key_positions
    )
    return model.unembed(params, y).reshape(b, c, l, -1)


def begin(model: Flamingo, media: Media | None, text: Text) -> tuple[Media | None, Text]:
    """The media and the text that tokens after a prompt read, as lists over blocks for an unrolled model.

    Of the pictures, these tokens read only the last one if `only_last_image` is set, and none if only the tags see
    pictures.
    """
    if media is not None and model.config.xattn.only_at_tag:
        media = None
    if media is not None and model.config.xattn.only_last_image:
        r = model.config.media_tokens

        def last(x):
            x = x.reshape(*x.shape[:3], -1, r, x.shape[-1])
            image = jnp.maximum(text.phi - 1, 0).reshape(1, -1, 1, 1, 1, 1)
            return jnp.take_along_axis(x, image, axis=3)[:, :, :, 0]

        media = Media(None, jax.tree.map(last, media.keys_values))
        text = text._replace(phi=jnp.minimum(text.phi, 1))
    if isinstance(model, Unrolled):
        media = media and Media(None, apart(media.keys_values))
        text = text._replace(cache=apart(text.cache))
    return media, text


def repeat(text: Text, times: int) -> Text:
    """Repeats each row `times` times in place, for beams."""
    return text._replace(
        cache=jax.tree.map(lambda x: jnp.repeat(x, times, axis=-4), text.cache),
        valid=jnp.repeat(text.valid, times, axis=0),
        position=jnp.repeat(text.position, times),
        phi=jnp.repeat(text.phi, times),
    )


def take(text: Text, rows: Int[Array, 'b']) -> Text:
    """Selects rows, since a beam may continue in several or in none."""
    return text._replace(
        cache=jax.tree.map(lambda x: jnp.take(x, rows, axis=-4), text.cache),
        valid=jnp.take(text.valid, rows, axis=0),
        position=jnp.take(text.position, rows),
        phi=jnp.take(text.phi, rows),
    )


def _positions_of(valid: Bool[Array, 'b p']) -> Int[Array, 'b p']:
    return jnp.maximum(jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1, 0)


def _advance(model, params, media, text: Text, tokens, valid, phi, last_only: bool = False):
    l, places = tokens.shape[1], text.valid.shape[1]
    all_valid = jax.lax.dynamic_update_slice(text.valid, valid, (0, text.end))
    not_after = jnp.arange(places) <= (text.end + jnp.arange(l))[:, None]
    positions = text.position[:, None] + _positions_of(valid)
    y = model.embed(params, tokens)
    mask = all_valid[:, None] & not_after
    key_positions = _positions_of(all_valid)
    y, cache = model.decoder(
        params,
        y,
        positions,
        mask=mask,
        media=media,
        phi=phi,
        cache=text.cache,
        index=text.end,
        key_positions=key_positions,
    )
    added = valid.sum(axis=1, dtype=jnp.int32)
    at_tag = model.config.xattn is not None and model.config.xattn.only_at_tag  # The next token is after it.
    seen = jnp.zeros_like(text.phi) if at_tag else phi[:, -1]
    text = Text(cache, all_valid, text.end + l, text.position + added, seen)
    return model.unembed(params, y[:, -1:] if last_only else y), text
