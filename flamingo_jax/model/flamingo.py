"""Flamingo (Alayrac et al. 2022, figure 3): open this file first.

    images uint8 [b n t height width 3] --vision trunk (frozen)--> features [b n t s d_v]
    features                            --resampler, per image-->  media    [b n r d]
    tokens int32 [b l] --phi = number of <image> tags up to here--> the one image that a token may see (0 = none)
    y = lm.embed(tokens); before every k-th LM block: y = gated_xattn_dense(y, media, phi); y = block(y)    (LM frozen)
    logits = lm.unembed(y) [b l v]

One letter per dimension, everywhere in this project:
    b batch    n images    t frames      s space (visual features a frame)   r latents an image    m media tokens = n r
    l text     d width (d_v vision)      h heads      g key/value heads      k head dim            v vocabulary

The parameters are one tree a component, so that what is frozen is a choice of top-level names:
    vision, lm                        pretrained and frozen
    resampler, xattn, extra_tokens    trained
    lora                              trained in fine-tuning, if the config has it: low-rank additions to lm's blocks
A model whose config has no `xattn` is its bare language model; text pretraining uses it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from flamingo_jax.model import lora
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.gated_xattn import GatedXattnDense, media_mask
from flamingo_jax.model.language_model import Block, Embedder, KeysValues
from flamingo_jax.model.layers import constrain, soft_cap
from flamingo_jax.model.resampler import Resampler
from flamingo_jax.model.vision.encoder import VisionEncoder

Params = dict[str, Any]


class Media(NamedTuple):
    """What the text may attend to: the media tokens, or the keys and values that every gated block made of them."""

    tokens: Float[Array, 'b m e'] | None  # e: `FlamingoConfig.media_width`.
    keys_values: Any  # Each [x b h m k] over the x gated blocks, or a list of [b h m k]; None: made inside each block.

    @property
    def length(self) -> int:
        """m, the media tokens a row."""
        return self.tokens.shape[1] if self.keys_values is None else jax.tree.leaves(self.keys_values)[0].shape[-2]


# What each block keeps for the backward pass beside its input; '' keeps everything.
REMAT = {
    'full': jax.checkpoint_policies.nothing_saveable,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # Products with a weight; attention is recomputed.
}


@dataclasses.dataclass(frozen=True)
class Flamingo:
    """The model: pure functions of a parameter tree. `dtype` is that of the computation, not of the parameters."""

    config: FlamingoConfig
    dtype: DTypeLike = jnp.float32
    remat: str = ''  # '', or a name of `REMAT`: recompute each block in the backward pass, keeping what it says.

    def __post_init__(self):
        if self.remat and self.remat not in REMAT:
            raise ValueError(f"remat is one of '', {', '.join(map(repr, REMAT))}, and not {self.remat!r}.")

    def logits(
        self,
        params: Params,
        images: Float[Array, 'b n t s d_v']
        | UInt8[Array, 'b n t height width 3']
        | Float[Array, 'b n t height width 3']
        | None,
        tokens: Int[Array, 'b l'],
        phi: Int[Array, 'b l'] | None = None,
        text_noise: Float[Array, 'b l d'] | None = None,
    ) -> Float[Array, 'b l v']:
        """The whole model, teacher-forced; arguments as of `hidden`.

        Returns:
          float32 logits over the language model's vocabulary and the extra tokens.
        """
        return self.unembed(params, self.hidden(params, images, tokens, phi, text_noise))

    def hidden(
        self,
        params: Params,
        images: Float[Array, 'b n t s d_v']
        | UInt8[Array, 'b n t height width 3']
        | Float[Array, 'b n t height width 3']
        | None,
        tokens: Int[Array, 'b l'],
        phi: Int[Array, 'b l'] | None = None,
        text_noise: Float[Array, 'b l d'] | None = None,
    ) -> Float[Array, 'b l d']:
        """The text after the last block: the picture at the head of this file, but for its last line.

        A loss takes the places that have a target before `unembed`, whose product with the vocabulary is a large part of a
        small model's work.

        Args:
          params: the component trees.
          images: pixels 0..255 (uint8 or float), or the trunk's features computed before ([b n t s d_v], five
            dimensions). Rows with fewer than n images are padded at the end; padding is never attended to. None for a
            text without pictures.
          tokens: text, padded at the end.
          phi: which image each token may see, where the data says so; None counts the <image> tags.
          text_noise: added to the embedded text, when a language model is pretrained (see `training/losses/`).

        Returns:
          What `unembed` makes logits of, in `dtype`.
        """
        y = self.embed(params, tokens)
        if text_noise is not None:
            y = y + text_noise
        return self._decode(params, images, tokens, phi, y, every_block=False)

    def states(
        self,
        params: Params,
        images: Float[Array, 'b n t s d_v'] | None,
        tokens: Int[Array, 'b l'],
        phi: Int[Array, 'b l'] | None = None,
    ) -> Float[Array, 'depth b l d']:
        """The text after every block of the language model; arguments as of `hidden`."""
        return self._decode(params, images, tokens, phi, self.embed(params, tokens), every_block=True)

    def _decode(self, params, images, tokens, phi, y, every_block):
        media = self.media(params, images)
        phi = self.phi(tokens, phi)
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        mask = causal_mask(tokens.shape[1])
        return self.decoder(params, y, positions, mask, media, phi, every_block=every_block)[0]

    def dtype_of(self, tree: str) -> DTypeLike:
        """What a component tree is computed in, and kept in where it is frozen; a trained one is kept in float32.

        It is `dtype`, except for a trunk that must stay float32.
        """
        return jnp.float32 if tree == 'vision' and self.config.vision.float32_only else self.dtype

    def features(
        self, params: Params, images: UInt8[Array, 'b n t height width 3'] | Float[Array, 'b n t height width 3']
    ) -> Float[Array, 'b n t s d_v']:
        """The trunk, once a frame, computed in `dtype_of('vision')`; the result has `dtype`.

        It has a gradient, which costs nothing where the trunk is frozen: the loss is then no function of its parameters.
        """
        b, n, t = images.shape[:3]
        encoder = VisionEncoder(self.config.vision, self.dtype_of('vision'))
        images = images.reshape(b * n * t, *images.shape[3:])
        features = encoder.apply({'params': params['vision']}, constrain(images, 'images', None, None, None))
        features = features.astype(self.dtype).reshape(b, n, t, *features.shape[1:])
        return constrain(features, 'batch', None, None, None, None)

    def media(self, params: Params, images: Float[Array, '...'] | UInt8[Array, '...'] | None) -> Media | None:
        """Pixels or features -> media tokens [b n*r e], by trunk and resampler (if there is one); None without images."""
        if images is None or self.config.xattn is None:
            return None
        media = self.features(params, images) if images.ndim == 6 else images
        b, n, t = media.shape[:3]
        if self.config.resampler is not None:
            resampler = Resampler(self.config.resampler, self.config.lm.width, self.dtype)
            media = self._checkpoint(resampler.apply)({'params': params['resampler']}, media)
        elif t > 1:
            raise ValueError(f'Without a resampler a picture has one frame, and not {t}.')
        media = media.astype(self.dtype).reshape(b, -1, media.shape[-1])
        return Media(constrain(media, 'batch', None, 'media'), None)

    def keys_values(self, params: Params, media: Media) -> Media:
        """The media's keys and values in every gated block, [x b h m k]: computed once a prompt when decoding."""

        def of_block(p):
            keys_values = self._gated.apply({'params': p}, media.tokens, method='keys_values')
            return tuple(x.swapaxes(1, 2) for x in keys_values)  # As attention reads them, for every token.

        return Media(None, jax.lax.map(of_block, params['xattn']))

    def phi(self, tokens: Int[Array, 'b l'], counted: Int[Array, 'b l'] | None = None) -> Int[Array, 'b l']:
        """phi of section 2.3: the image that each token may see, 0 = none.

        Args:
          counted: phi as the data has it, which may tie text to the next picture; None counts the <image> tags that have
            begun up to each token, the tag's own tokens included.

        Returns:
          `counted`; with `xattn.only_at_tag` 0 everywhere but at the tags' own tokens.
        """
        c = self.config
        if not c.image_tag:
            return jnp.zeros_like(tokens) if counted is None else counted
        begins = jnp.ones(tokens.shape, bool)
        for i, piece in enumerate(c.image_tag):
            begins &= jnp.pad(tokens[:, i:], ((0, 0), (0, i)), constant_values=-1) == piece
        phi = jnp.cumsum(begins, axis=1, dtype=jnp.int32) if counted is None else counted
        if c.xattn is None or not c.xattn.only_at_tag:
            return phi
        behind = [jnp.pad(begins, ((0, 0), (i, 0)))[:, : tokens.shape[1]] for i in range(len(c.image_tag))]
        return jnp.where(jnp.stack(behind).any(axis=0), phi, 0)

    def embed(self, params: Params, tokens: Int[Array, 'b l']) -> Float[Array, 'b l d']:
        """The language model's embeddings; tokens beyond its vocabulary have learnt rows of their own."""
        embedder, v = self._embedder, self.config.lm.vocab_size
        y = embedder.apply({'params': params['lm']['embedder']}, jnp.minimum(tokens, v - 1), method='embed')
        if self.config.extra_tokens:
            extra = jnp.take(params['extra_tokens']['input'], jnp.maximum(tokens - v, 0), axis=0)
            y = jnp.where((tokens >= v)[..., None], extra.astype(self.dtype), y)
        return y

    def unembed(self, params: Params, y: Float[Array, 'b l d']) -> Float[Array, 'b l v']:
        """Final norm and logits; the extra tokens' come last."""
        embedder = {'params': params['lm']['embedder']}
        y = self._embedder.apply(embedder, y, method='normalise')
        logits = self._embedder.apply(embedder, y, method='logits')
        if self.config.extra_tokens:
            rows = params['extra_tokens']['input' if self.config.extra_tied else 'output'].astype(self.dtype)
            extra = jnp.einsum('bld,ed->ble', y, rows, preferred_element_type=jnp.float32)
            logits = jnp.concatenate([logits, extra], axis=-1)
        return soft_cap(logits, self.config.lm.logit_cap)

    def decoder(
        self,
        params: Params,
        y: Float[Array, 'b l d'],
        positions: Int[Array, 'b l'],
        mask: Bool[Array, '#b l p'],
        media: Media | None,
        phi: Int[Array, 'b l'],
        cache: KeysValues | list[KeysValues] | None = None,
        index: Int[Array, ''] | int = 0,
        key_positions: Int[Array, 'b p'] | None = None,
        every_block: bool = False,
    ) -> tuple[Float[Array, '*depth b l d'], KeysValues | list[KeysValues] | None]:
        """The blocks: groups of one gated block and the `every` LM blocks after it, scanned.

        Args:
          params: their stacks may be lists of the blocks' trees, and then so are the media's and the cache (`decode.apart`).
          y, positions: embedded text and its positions.
          mask: self-attention mask; p = l without a cache.
          media, phi: what may be seen, and by whom; None is no picture.
          cache, index: self-attention keys and values of every block ([depth b g p k]) and where y begins in them.
          key_positions: of the cache's places.
          every_block: give y after every block, [depth b l d]; not with lists.

        Returns:
          y after the last block, and the new cache.
        """
        c = self.config
        block = Block(c.lm, self.dtype)
        y = Embedder(c.lm, self.dtype).apply({'params': params['lm']['embedder']}, y, positions, method='add_positions')
        if media is None and c.xattn is not None and not c.xattn.ffw_where_seen:  # The paper's acts on every text.
            media = Media(jnp.zeros((y.shape[0], 0, c.media_width), self.dtype), None)
        if media is not None:
            gated, r = self._gated, c.media_tokens
            seen = media_mask(phi, media.length // r, r, c.xattn.only_last_image)

        blocks = params['lm']['blocks'], (params['lora'] if c.lora else None)
        windows, length = c.lm.windows or (0,), y.shape[1]
        uniform = len(set(windows)) == 1

        def run(y, i, here, low_rank, old):
            variables = {'params': here} | ({'lora': lora.scaled(c.lora, low_rank)} if c.lora else {})
            window = windows[0] if uniform else jnp.array(windows)[i]
            return block.apply(variables, y, positions, mask, old, index, key_positions, window)

        def run_gated(y, p, keys_values):
            if keys_values is None:
                keys_values = gated.apply({'params': p}, media.tokens, method='keys_values')
            else:
                keys_values = tuple(x.swapaxes(1, 2) for x in keys_values)
            return gated.apply({'params': p}, y, keys_values, seen)

        first, every = (c.xattn.first, c.xattn.every) if c.xattn else (0, c.lm.depth)
        if isinstance(blocks[0], list):  # Only with a cache.
            cache = list(cache)
            for i, here in enumerate(blocks[0]):
                group, rest = divmod(i - first, every)
                if media is not None and group >= 0 and rest == 0:
                    y = run_gated(y, params['xattn'][group], media.keys_values and media.keys_values[group])
                y, cache[i] = run(y, i, here, blocks[1] and blocks[1][i], cache[i])
            return y, cache

        # The same for stacks. Groups are scanned, so that compile time does not grow with depth. Where the last group
        # is ragged (80 = 11 * 7 + 3), it passes over the blocks that there are not, and each block is taken from the whole
        # stack where it is used: cutting the stack into groups would copy the model. The same holds where blocks stand before
        # the first group.
        groups, ragged = -(-(c.lm.depth - first) // every), first > 0 or c.lm.depth % every != 0
        grouped = None if ragged else jax.tree.map(lambda x: x.reshape(groups, every, *x.shape[1:]), blocks)

        def run_block(y_cache, xs):
            i, p = xs

            def go(y, cache):
                here, low_rank = _at(blocks, i) if ragged else p
                y, new = run(y, i, here, low_rank, None if cache is None else _at(cache, i))
                if cache is not None:
                    cache = jax.tree.map(lambda x, x_i: _put(x, x_i, i, index, length), cache, new)
                return y, cache

            y_cache = jax.lax.cond(i < c.lm.depth, go, lambda *same: same, *y_cache) if ragged else go(*y_cache)
            return y_cache, y_cache[0] if every_block else None

        run_block, run_gated = self._checkpoint(run_block), self._checkpoint(run_gated)

        def run_group(y_cache, xs):
            group, gated_params, keys_values, p = xs
            y, cache = y_cache
            if media is not None:
                y = run_gated(y, gated_params, keys_values)
            return jax.lax.scan(run_block, (y, cache), (first + group * every + jnp.arange(every), p))

        before = None
        if first:
            (y, cache), before = jax.lax.scan(run_block, (y, cache), (jnp.arange(first), None))
        gated_xs = (params['xattn'], media.keys_values) if media is not None else (None, None)
        (y, cache), states = jax.lax.scan(run_group, (y, cache), (jnp.arange(groups), *gated_xs, grouped))
        if every_block:
            states = states.reshape(-1, *y.shape)
            y = (jnp.concatenate([before, states]) if first else states)[: c.lm.depth]
        return y, cache

    def _checkpoint(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if not self.remat:
            return function
        return jax.checkpoint(function, policy=REMAT[self.remat], prevent_cse=False)

    def empty_cache(self, b: int, length: int) -> KeysValues:
        """Self-attention keys and values for `length` tokens of b rows, all zero: [depth b g length k]."""
        lm = self.config.lm
        shape = (lm.depth, b, lm.kv_heads, length, lm.head_dim)
        return KeysValues(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))

    def init(self, key: Key[Array, '']) -> Params:
        """New parameters, float32, each boxed with its logical axis names (`flax.linen.meta.unbox` removes them)."""
        c = self.config
        names = ('vision', 'embedder', 'blocks', 'resampler', 'xattn', 'extra_input', 'extra_output')
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        params = {}
        if c.vision is not None:
            pixels = jnp.zeros((1, c.image_size, c.image_size, 3), jnp.uint8)
            params['vision'] = VisionEncoder(c.vision).init(keys['vision'], pixels)['params']
        if c.lm is not None:
            y, tokens = jnp.zeros((1, 1, c.lm.width)), jnp.zeros((1, 1), jnp.int32)
            mask = jnp.ones((1, 1, 1), bool)
            params['lm'] = {
                'embedder': Embedder(c.lm).init(keys['embedder'], tokens)['params'],
                'blocks': _init_stacked(Block(c.lm), c.lm.depth, keys['blocks'], y, tokens, mask),
            }
            if c.lora is not None:
                params['lora'] = lora.init(c.lora, params['lm']['blocks'], keys['blocks'])
        if c.xattn is not None:
            if c.resampler is not None:
                features = jnp.zeros((1, 1, 1, 1, c.vision.width))
                resampler = Resampler(c.resampler, c.lm.width)
                params['resampler'] = resampler.init(keys['resampler'], features)['params']
            media = jnp.zeros((1, 1, c.media_width))
            params['xattn'] = _init_stacked(self._gated, c.xattn_blocks, keys['xattn'], y, media, mask, method='touch')
        if c.extra_tokens:
            shape = (len(c.extra_tokens), c.lm.width)
            # Small: at an <image> tag the frozen model should read the picture, which is added to the tag's own row.
            scale = 0.02
            axes = ('extra_tokens', 'embed')
            rows_in = nn.with_logical_partitioning(nn.initializers.normal(scale), axes)
            rows_out = nn.with_logical_partitioning(nn.initializers.normal(c.lm.width**-0.5), axes)
            params['extra_tokens'] = {'input': rows_in(keys['extra_input'], shape)}
            if not c.extra_tied:
                params['extra_tokens']['output'] = rows_out(keys['extra_output'], shape)
        return params

    @property
    def _gated(self) -> GatedXattnDense:
        return GatedXattnDense(self.config.xattn, self.config.lm.width, self.config.media_width, self.dtype)

    @property
    def _embedder(self) -> Embedder:
        return Embedder(self.config.lm, self.dtype)


def _at(stacked: Any, i: Int[Array, '']) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), stacked)


def _put(stack, block, i, index, length):
    """A block's cache into the stack of all: only the places that are new, at `index`."""
    new = jax.lax.dynamic_slice_in_dim(block, index, length, axis=-2)
    return jax.lax.dynamic_update_slice(stack, new[None], (i, 0, 0, index, 0))


def _init_stacked(module: nn.Module, n: int, key: Key[Array, ''], *args, method: str | None = None) -> Params:
    params = jax.vmap(lambda k: module.init(k, *args, method=method)['params'])(jax.random.split(key, n))
    return jax.tree.map(
        lambda box: box.add_axis(0, {nn.PARTITION_NAME: 'layers'}),
        params,
        is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata),
    )


def causal_mask(l: int) -> Bool[Array, '1 l l']:
    """True where the key is not after the query."""
    return jnp.tril(jnp.ones((1, l, l), bool))
