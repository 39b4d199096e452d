"""Decoding with two caches, both explicit arguments and results.

    media   the images' keys and values in every gated block, computed once per prompt
    cache   the text's self-attention keys and values, which grow

`resample` runs the trunk and the resampler once per image, and `keys_values` what every gated block makes of it;
`prefill` reads the prompt; `extend` adds tokens. (`encode_images` does the first two at once.) Prompts of different
lengths are padded on the left, so that all rows write to the same place in the cache.

What several rows have in common is there once. `fork` ends what was read as a part that nothing is added to, and each
of its rows goes on as several: the prompts that begin with the same examples, the beams or the candidates of a prompt.
They read the part without a copy (`attention.attend_to_parts`).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flamingo_jax.inference.unrolled import Unrolled, apart
from flamingo_jax.inputs.images import Frames
from flamingo_jax.model.flamingo import Flamingo, Media, Params, Past, Placement
from flamingo_jax.model.language_model import KeysValues, Run
from flamingo_jax.model.stack import put


class Part(NamedTuple):
    """A text that was read before; c rows, of which each is the beginning of b / c consecutive rows."""

    cache: KeysValues  # Each [depth c g p k] with p places; or a list over blocks.
    valid: Bool[Array, 'c p']  # Which places have a token (not padding, not free).
    positions: Int[Array, 'c p']  # Their positions in the text.


class Text(NamedTuple):
    """The text read so far: the parts that rows share, then each row's own."""

    cache: KeysValues  # Each [depth b g p k] with p places; or a list over blocks.
    valid: Bool[Array, 'b p']
    end: Int[Array, '*b']  # The first free place: of all rows, or of each where they come and go (`serving.py`).
    position: Int[Array, 'b']  # Position of each row's next token.
    images: Int[Array, 'b']  # The number of images so far.
    parts: tuple[Part, ...] = ()
    run: Run | None = None  # The images side by side at its end, if the bridge shows several.


class Prompts(NamedTuple):
    """Prompts that were read."""

    media: Media | None
    text: Text
    logits: Float[Array, 'b v']  # Of the token after each.


def encode_images(model: Flamingo, params: Params, images: Sequence[Sequence[Frames]]) -> Media | None:
    """Images of each row -> keys and values of the media. Trunk and resampler run once per image.

    Args:
      images: for each row its images, uint8 [t height width 3] or features [t s d_v]; t may differ between them.

    Returns:
      Media of b rows of n images, where n is the most images of a row, rounded up to a power of two to compile
      rarely; None if no row has an image.
    """
    n = max(len(row) for row in images)
    if n == 0:
        return None
    n = power_of_two(n)
    found = iter(resample(model, params, [image for row in images for image in row]))
    rows = [[next(found) for _ in row] for row in images]
    return keys_values(model, params, Media(in_rows(model, rows, n), None))


def power_of_two(n: int) -> int:
    """The least one that is not below n."""
    return 1 << (n - 1).bit_length()


def resample(model: Flamingo, params: Params, images: Sequence[Frames]) -> list[Float[np.ndarray, 'r e']]:
    """The media tokens of each image, on the host: trunk and resampler. Images as for `encode_images`."""
    devices = max(1, jax.sharding.get_abstract_mesh().size)  # Of the current mesh (`parallel.rules.activations`).
    most = 16 if jax.default_backend() == 'cpu' else 64  # More do not fit a CPU's cache: 10 % slower for 32 (ViT/16).
    by_shape: dict[tuple, list[int]] = {}
    for i, image in enumerate(images):
        by_shape.setdefault((image.shape, image.dtype), []).append(i)
    found: dict[int, np.ndarray] = {}
    for group in by_shape.values():
        # Powers of two: few programs, and no padding images. The trunk takes a video's frames as so many images.
        first = images[group[0]]
        fit = max(most // len(first), power_of_two(devices)) if first.dtype == np.uint8 else most
        fit = min(fit, model.config.vision.at_once)
        while group:
            size = 1 << (min(fit, len(group)).bit_length() - 1)
            frames = [images[i] for i in group[:size]]
            frames += frames[-1:] * (-size % devices)  # Whole images on each device.
            tokens = np.asarray(_resample(model, params, np.stack(frames)[:, None]))
            found |= {i: np.array(row) for i, row in zip(group[:size], tokens, strict=False)}
            group = group[size:]
    return [found[i] for i in range(len(images))]


def in_rows(model: Flamingo, rows: Sequence[Sequence[Float[np.ndarray, 'r e']]], n: int) -> Float[np.ndarray, 'b m e']:
    """The media tokens of each row's images side by side, padded to n images."""
    tokens = np.zeros((len(rows), n, model.config.media_tokens, model.config.media_width), model.dtype)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            tokens[i, j] = image
    return tokens.reshape(len(rows), -1, tokens.shape[-1])


@functools.partial(jax.jit, static_argnums=0)
def _resample(model: Flamingo, params: Params, images: Array) -> Float[Array, 'b r e']:
    return cast(Array, model.media(params, images).tokens)


@functools.partial(jax.jit, static_argnums=0)
def keys_values(model: Flamingo, params: Params, media: Media) -> Media:
    """The media's keys and values in every gated block, [x b h m k]. They are computed once per prompt."""

    def of_block(i_p):
        return model.bridge.apply({'params': i_p[1]}, media.tokens, method='keys_values')

    # Some bridges have no parameters.
    found = jax.lax.map(of_block, (jnp.arange(model.config.xattn_blocks), params.get('xattn', {})))
    return Media(None, found, model.config.xattn.real(media.tokens))


def prefill(
    model: Flamingo,
    params: Params,
    media: Media | None,
    tokens: Int[Array, 'b l'],
    valid: Bool[Array, 'b l'],
    room: int,
    before: Text | None = None,
) -> tuple[Float[Array, 'b v'], Text]:
    """Reads prompts, which are padded on the left.

    Args:
      media: from `keys_values`.
      tokens, valid: the prompts; valid is False on padding.
      room: the number of tokens that can be added later.
      before: what was read before them, if anything: c rows, each the beginning of b / c prompts.

    Returns:
      float32 logits of the token after each prompt, and the text.
    """
    b, l = tokens.shape
    text = with_room(model, b, l + room, before)
    logits, text = extend(model, params, media, text, tokens, valid=valid, last_only=True)
    return logits[:, 0], text


def with_room(model: Flamingo, b: int, room: int, before: Text | None = None) -> Text:
    """The text of b prompts that are to be read, with room for so many tokens each. before: as for `prefill`."""
    if before is not None:
        return fork(model, before, b // len(before.position), room)
    nothing = jnp.zeros((b,), jnp.int32)
    return _with_room(model, b, room, nothing, nothing, ())


def extend(
    model: Flamingo,
    params: Params,
    media: Media | None,
    text: Text,
    tokens: Int[Array, 'b l'],
    valid: Bool[Array, 'b l'] | None = None,
    last_only: bool = False,
) -> tuple[Float[Array, 'b _ v'], Text]:
    """Adds tokens to each row -> (logits after each of them, or after the last one only; the new text).

    Args:
      media: of the whole text. Its <image> tags are those of the images in their order.
      valid: False on padding, which is on the left; None: there is none.
    """
    l = tokens.shape[1]
    valid = jnp.ones(tokens.shape, bool) if valid is None else valid
    all_valid = put(text.valid, valid, text.end, axis=-1)
    there = jnp.where(valid, tokens, -1)
    phi = model.phi(there, before=text.images)
    c = model.config
    run = c.xattn and c.xattn.run(there, c.image_tag, phi, text.run)
    not_after = jnp.arange(text.valid.shape[1]) <= (text.end[..., None] + jnp.arange(l))[..., None]
    own_positions = (text.position - text.valid.sum(axis=1))[:, None] + _places(all_valid)
    shared = [_for_rows(len(tokens), (part.valid, part.positions)) for part in text.parts]
    mask = [jnp.broadcast_to(of_part[:, None], (len(tokens), l, of_part.shape[1])) for of_part, _ in shared]
    at = Placement(
        text.position[:, None] + _places(valid),
        mask=jnp.concatenate([*mask, all_valid[:, None] & not_after], axis=2),
        phi=phi,
        run=run,
    )
    past = Past(
        text.cache,
        text.end,
        key_positions=jnp.concatenate([*(positions for _, positions in shared), own_positions], axis=1),
        shared=[part.cache for part in text.parts],
    )
    y, cache = model.decoder(params, model.embed(params, tokens), at, media, past)
    added = valid.sum(axis=1, dtype=jnp.int32)
    text = Text(
        cache,
        all_valid,
        text.end + l,
        text.position + added,
        jnp.maximum(text.images, phi.max(axis=1)),
        text.parts,
        jax.tree.map(lambda x: x[:, -1], run),
    )
    return model.unembed(params, y[:, -1:] if last_only else y), text


def fork(model: Flamingo, text: Text, times: int, room: int) -> Text:
    """Each row goes on as `times` rows, which share it, with room for so many tokens each."""
    own_positions = (text.position - text.valid.sum(axis=1))[:, None] + _places(text.valid)
    position, images, run = jax.tree.map(lambda x: jnp.repeat(x, times), (text.position, text.images, text.run))
    parts = *text.parts, Part(text.cache, text.valid, own_positions)
    return _with_room(model, len(position), room, position, images, parts)._replace(run=run)


def begin(model: Flamingo, media: Media | None, text: Text, times: int, room: int) -> tuple[Media | None, Text]:
    """The media and the text that tokens after a prompt read: each row goes on as `times` rows, as in `fork`."""
    media, text = after_prompt(model, media, text)
    return media, fork(model, text, times, room)


def after_prompt(model: Flamingo, media: Media | None, text: Text) -> tuple[Media | None, Text]:
    """What tokens after a prompt read of it.

    Of the images, they read only the last one if `only_last_image` is set, and none if only the tags see images.
    For an unrolled model, media and text are lists over blocks.
    """
    if media is not None and model.config.xattn.at_tag:
        media = None
    if media is not None and model.config.xattn.only_last_image:
        media = Media(None, (_last_images(media, text.images, model.config.media_tokens),))
        text = text._replace(images=jnp.minimum(text.images, 1))
    if isinstance(model, Unrolled):
        media = media and media._replace(keys_values=apart(media.keys_values))
        parts = tuple(part._replace(cache=apart(part.cache)) for part in text.parts)
        text = text._replace(cache=apart(text.cache), parts=parts)
    return media, text


def alone(text: Text, places: int) -> Text:
    """A text of which rows share nothing: the tokens of each side by side from place 0 on, then free places."""
    every, b = (*text.parts, text), len(text.position)
    valid = jnp.concatenate(_for_rows(b, tuple(part.valid for part in every)), axis=1)
    order = jnp.argsort(~valid, axis=1, stable=True)[:, :places]

    def side_by_side(*parts):
        x = jnp.concatenate([jnp.repeat(part, b // part.shape[-4], axis=-4) for part in parts], axis=-2)
        rows = x.ndim - 4
        x = jax.vmap(lambda x, places: jnp.take(x, places, axis=-2, mode='clip'), (rows, 0), rows)(x, order)
        return lengthen(x, places, axis=-2)

    cache = jax.tree.map(side_by_side, *(part.cache for part in every))
    return Text(
        cache, jnp.arange(places) < text.position[:, None], text.position, text.position, text.images, run=text.run
    )


def lengthen(x: Array, length: int, axis: int) -> Array:
    """Pads an axis with zeros, or cuts it."""
    x = jax.lax.slice_in_dim(x, 0, min(length, x.shape[axis]), axis=axis)
    pads = [(0, 0)] * x.ndim
    pads[axis] = (0, length - x.shape[axis])
    return jnp.pad(x, pads)


def _last_images(media: Media, images: Int[Array, 'b'], r: int):
    """Of each row's media those of its last image: keys and values [x b h r k]."""
    found, before = None, 0
    for part in media.keys_values:
        rows, n = part[0].shape[1], part[0].shape[-2] // r
        row = jnp.arange(images.shape[0]) // (images.shape[0] // rows)
        image = jnp.clip(images - 1 - before, 0, n - 1)

        def taken(x, row=row, image=image):
            x = x.reshape(*x.shape[:3], -1, r, x.shape[-1])
            return x[:, row, :, image].swapaxes(0, 1)  # Indexed dimensions come first: [b x h r k].

        here = jax.tree.map(taken, part)
        in_part = (images > before)[:, None, None, None]
        found = here if found is None else jax.tree.map(lambda a, b, c=in_part: jnp.where(c, a, b), here, found)
        before += n
    return found


def take(text: Text, rows: Int[Array, 'b']) -> Text:
    """Each row goes on as another of the rows that share its parts: a beam may continue in several or in none."""
    return text._replace(cache=jax.tree.map(lambda x: jnp.take(x, rows, axis=-4), text.cache))


def _with_room(model, rows: int, room: int, position, images, parts) -> Text:
    valid = jnp.zeros((rows, room), bool)
    return Text(model.empty_cache(rows, room), valid, jnp.zeros((), jnp.int32), position, images, parts)


def _for_rows(b: int, of_part: tuple[Array, ...]) -> list[Array]:
    """What c rows have, for b rows."""
    return [jnp.repeat(x, b // len(x), axis=0) for x in of_part]


def _places(valid: Bool[Array, 'b p']) -> Int[Array, 'b p']:
    """The number of each token in its row, from 0."""
    return jnp.maximum(jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1, 0)
