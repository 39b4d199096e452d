"""Flamingo (Alayrac et al. 2022, figure 3): open this file first.

    images uint8 [b n t height width 3] --vision trunk (frozen)--> features [b n t s d_v]
    features                            --resampler, per image-->  media    [b n r e]
    tokens int32 [b l] --phi = number of <image> tags up to here--> the one image that a token may see (0 = none)
    y = lm.embed(tokens); before every k-th LM block: y = gated_xattn_dense(y, media, phi); y = block(y)    (LM frozen)
    logits = lm.unembed(y) [b l v]

One letter per dimension, everywhere in this project where a docstring does not say otherwise:
    b batch    n images    t frames      s space (visual features a frame)   r latents an image    m media tokens = n r
    l text     d width (d_v vision)      h heads      g key/value heads      k head dim            v vocabulary
    e width of media tokens   c rows of media   p places of a cache   x gated blocks

The parameters are one tree per component, so that a choice of top-level names says what is frozen:
    vision, lm                        pretrained and frozen
    resampler, xattn, extra_tokens    trained
    lora                              trained in fine-tuning, if the config has it: low-rank additions to lm's blocks
    contrastive                       trained in contrastive pretraining, with vision or resampler, and lm
A model whose config has no `xattn` is a language model alone, as in text pretraining, or with `contrastive` the two
towers in which a trunk or a resampler is pretrained (`contrastive.py`).
"""

# flax: `apply` may give a pair, which it does only with `mutable`.
# pyright: reportReturnType=false, reportAttributeAccessIssue=false, reportAssignmentType=false

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, UInt8

from flamingo_jax.errors import UserError
from flamingo_jax.model import init, lora, stack
from flamingo_jax.model.attention import KERNELS, Segments
from flamingo_jax.model.bridges.bridge import Bridge, Media, tags
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.language_model import Block, Embedder, KeysValues, Past, Placement
from flamingo_jax.model.layers import constrain, product, soft_cap
from flamingo_jax.model.quantised import Quantisation
from flamingo_jax.model.vision.encoder import VisionEncoder
from flamingo_jax.ranges import choose

Params = dict[str, Any]
Pixels = UInt8[Array, 'b n t height width 3'] | Float[Array, 'b n t height width 3']
NEVER = jnp.finfo(jnp.float32).min  # The logit of a token that is never written.
# Features that the trunk computed before, or pixels. Each of c rows serves b / c rows of text, one after the other.
Images = (
    Float[Array, 'c n t s d_v'] | UInt8[Array, 'c n t height width 3'] | Float[Array, 'c n t height width 3'] | None
)


@dataclasses.dataclass(frozen=True)
class Flamingo:
    """The model: pure functions of a parameter tree. `dtype` is the computation's, not the parameters'."""

    config: FlamingoConfig
    dtype: DTypeLike = jnp.float32
    remat: str = ''  # What the backward pass recomputes: '' is nothing; else a name in `stack.REMAT`.
    attention_kernel: str = 'plain'  # 'plain', or what computes attention on a GPU or a TPU (`attention.py`).
    quantised: Quantisation | None = None  # How the frozen language model's matrices are kept; None: in `dtype`.

    loop: ClassVar[Callable[..., Any]] = staticmethod(stack.scan)  # Over the blocks.

    def __post_init__(self):
        choose('', vars(self), remat=('', *stack.REMAT), attention_kernel=KERNELS)

    def logits(
        self, params: Params, images: Images, tokens: Int[Array, 'b l'], phi: Int[Array, 'b l'] | None = None
    ) -> Float[Array, 'b l v']:
        """The whole model, teacher-forced; arguments as for `hidden`.

        Returns:
          float32 logits over the language model's vocabulary and the extra tokens.
        """
        return self.unembed(params, self.hidden(params, images, tokens, phi))

    def hidden(
        self,
        params: Params,
        images: Images,
        tokens: Int[Array, 'b l'],
        phi: Int[Array, 'b l'] | None = None,
        document: Int[Array, 'b l'] | None = None,
    ) -> Float[Array, 'b l d']:
        """The text after the last block. A loss selects the positions that have a target before `unembed`.

        Args:
          params: the component trees.
          images: pixels 0..255, or features. Rows with fewer than n images are padded at the end; padding is never
            attended to. None for text without images.
          tokens, phi, document: as for `place`.

        Returns:
          The input of `unembed`, in `dtype`.
        """
        media = self.media(params, images)  # By the trunk and the connector.
        at = self.place(tokens, phi, document)  # phi: the one image that a token may see.
        y = self.embed(params, tokens)
        y, _ = self.decoder(params, y, at, media)  # Before every k-th block, the bridge shows it the media.
        return y

    def decoder(
        self, params: Params, y: Float[Array, 'b l d'], at: Placement, media: Media | None, past: Past | None = None
    ) -> tuple[Float[Array, '*depth b l d'], KeysValues | None]:
        """The blocks of the language model, with the bridge before every k-th.

        Args:
          y, at: embedded text, and where its tokens stand.
          media: what the text may see; None is no image.
          past: keys and values of earlier tokens, if there are some.

        Returns:
          y after the last block (after every block, where the loop says so: `states.py`), and the new cache (None
          without a past).
        """
        c, past = self.config, past or Past(None)
        y = self.embedder.apply({'params': params['lm']['embedder']}, y, at.positions, method='add_positions')
        if media is None and c.xattn is not None and c.xattn.acts_on_text:
            media = Media(jnp.zeros((y.shape[0], 0, c.media_width), self.dtype), None)
        seen = None if media is None else c.xattn.seen(at, media, c.media_tokens)
        windows = c.lm.windows or (0,)

        def gated(y, gate):
            p, keys_values = gate
            if keys_values is None:
                keys_values = self.bridge.apply({'params': p}, media.tokens, method='keys_values')
            return self.bridge.apply({'params': p}, y, keys_values, seen)

        def block(y, p, i, old):
            p, low_rank, earlier = p
            variables = {'params': p} | ({'lora': lora.scaled(c.lora, low_rank)} if c.lora else {})
            window = windows[0] if len(set(windows)) == 1 else jnp.array(windows)[i]
            of_block = Past(old, past.index, past.key_positions, earlier)
            return Block(c.lm, self.dtype, self.attention_kernel).apply(variables, y, at, of_block, window)

        return self.loop(
            block,
            gated,
            y,
            past.cache,
            blocks=(params['lm']['blocks'], params['lora'] if c.lora else None, tuple(past.shared)),
            gates=None if media is None else (params.get('xattn', {}), media.keys_values),
            first=c.xattn.first if c.xattn else 0,
            every=c.xattn.every if c.xattn else c.lm.depth,
            index=past.index,
            remat=self.remat,
        )

    def place(
        self, tokens: Int[Array, 'b l'], phi: Int[Array, 'b l'] | None = None, document: Int[Array, 'b l'] | None = None
    ) -> Placement:
        """Where the tokens of whole texts stand.

        Args:
          tokens: text, padded at the end.
          phi: which image each token may see, if the data say so; None counts the <image> tags.
          document: which document of its row each token belongs to, if rows hold several; None: a row is one. Each is
            computed as it would be alone. phi must then be given, and count the images of the row. Rows that share
            images have different documents.
        """
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        if document is not None:  # Positions begin anew with each document, and attention ends with it.
            begins = jnp.diff(document, axis=1, prepend=-1) != 0
            positions = positions - jax.lax.cummax(jnp.where(begins, positions, 0), axis=1)
        phi, c = self.phi(tokens, phi), self.config
        run = c.xattn and c.xattn.run(tokens, c.image_tag, phi)
        return Placement(positions, Segments(document, document, causal=True), phi, document, run)

    def phi(
        self,
        tokens: Int[Array, 'b l'],
        given: Int[Array, 'b l'] | None = None,
        before: Int[Array, 'b'] | None = None,
    ) -> Int[Array, 'b l']:
        """phi of section 2.3: the image that each token may see, 0 = none.

        Args:
          given: phi from the data, which may tie text to the next image. None counts the <image> tags that begin
            at or before each token.
          before: the number of images in the text before these tokens.

        Returns:
          phi. If only the tags' own tokens see images (`BridgeConfig.at_tag`), it is 0 elsewhere.
        """
        c = self.config
        begins = tags(tokens, c.image_tag)
        phi = jnp.cumsum(begins, axis=1, dtype=jnp.int32) if given is None else given
        phi = phi if before is None else phi + before[:, None]
        return phi if c.xattn is None else c.xattn.restricted(phi, begins, len(c.image_tag))

    def dtype_of(self, tree: str) -> DTypeLike:
        """The dtype in which a component tree is computed, and stored if it is frozen; a trained one is in float32.

        It is `dtype`, except for a trunk that must stay float32, and for the matrices of a `quantised` language model.
        """
        return jnp.float32 if tree == 'vision' and self.config.vision.float32_only else self.dtype

    def features(self, params: Params, images: Pixels) -> Float[Array, 'b n t s d_v']:
        """The trunk, applied to each frame and computed in `dtype_of('vision')`; the result has `dtype`.

        It has a gradient, which costs nothing if the trunk is frozen: its parameters are then not an argument of the
        gradient.
        """
        b, n, t = images.shape[:3]
        encoder = VisionEncoder(self.config.vision, self.dtype_of('vision'))
        images = images.reshape(b * n * t, *images.shape[3:])
        # By default, TPUs multiply float32 in bfloat16, and GPUs in TF32.
        exact = jax.default_matmul_precision('highest') if self.config.vision.float32_only else contextlib.nullcontext()
        with exact:
            features = encoder.apply({'params': params['vision']}, constrain(images, 'images', None, None, None))
        features = features.astype(self.dtype).reshape(b, n, t, *features.shape[1:])
        return constrain(features, 'batch', None, None, None, None)

    def media(self, params: Params, images: Float[Array, '...'] | UInt8[Array, '...'] | None) -> Media | None:
        """Pixels or features -> media tokens [b n*r e], by trunk and resampler (if any); None without images.

        Raises:
          ValueError: an image has several frames, but the model has no resampler.
        """
        if images is None or self.config.xattn is None:
            return None
        media = self.features(params, images) if images.ndim == 6 else images
        b, n, t = media.shape[:3]
        if self.config.resampler is not None:
            media = self.resampled(params, media)
        elif t > 1:
            raise UserError(f'A model without a resampler takes images of one frame, not {t}. Set frames to 1.')
        media = media.astype(self.dtype)
        media = constrain(media.reshape(b, -1, media.shape[-1]), 'batch', None, 'media')
        return Media(media, None, self.config.xattn.real(media))

    def resampled(self, params: Params, features: Float[Array, 'b n t s d_v']) -> Float[Array, 'b n r e']:
        """The resampler, applied to each image by itself."""
        resampler = self.config.resampler.module(self.config.lm.width, self.dtype, self.attention_kernel)
        return stack.checkpoint(resampler.apply, self.remat)({'params': params['resampler']}, features)

    def embed(self, params: Params, tokens: Int[Array, 'b l']) -> Float[Array, 'b l d']:
        """The language model's embeddings; tokens beyond its vocabulary have learnt rows of their own."""
        embedder, v = self.embedder, self.config.lm.vocab_size
        y = embedder.apply({'params': params['lm']['embedder']}, jnp.minimum(tokens, v - 1), method='embed')
        if self.config.extra_tokens:
            extra = jnp.take(params['extra_tokens']['input'], jnp.maximum(tokens - v, 0), axis=0)
            y = jnp.where((tokens >= v)[..., None], extra.astype(self.dtype), y)
        if self.config.xattn is not None and self.config.xattn.with_positions:
            y = jnp.where((tokens[..., None] == jnp.array(self.config.image_tag)).any(-1, keepdims=True), 0, y)
        return y

    def unembed(self, params: Params, y: Float[Array, 'b l d']) -> Float[Array, 'b l v']:
        """Final norm and logits; the extra tokens' come last."""
        embedder = {'params': params['lm']['embedder']}
        y = self.embedder.apply(embedder, y, method='normalise')
        logits = self.embedder.apply(embedder, y, method='logits')
        if self.config.extra_unwritten:
            logits = jnp.pad(logits, ((0, 0), (0, 0), (0, len(self.config.extra_tokens))), constant_values=NEVER)
        elif self.config.extra_tokens:
            rows = params['extra_tokens']['input' if self.config.extra_tied else 'output'].astype(self.dtype)
            logits = jnp.concatenate([logits, product('bld,ed->ble', y, rows)], axis=-1)
        return soft_cap(logits, self.config.lm.logit_cap)

    def empty_cache(self, b: int, length: int) -> KeysValues:
        """Self-attention keys and values for `length` tokens of b rows, all zero: [depth b g length k]."""
        lm = self.config.lm
        shape = (lm.depth, b, lm.kv_heads, length, lm.head_dim)
        return KeysValues(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))

    def init(self, key: Key[Array, '']) -> Params:
        """New parameters, float32, each boxed with its logical axis names (`flax.linen.meta.unbox` removes them)."""
        return init.init(self.config, key)

    @property
    def alone(self) -> 'Flamingo':
        """The frozen language model alone, which takes `{'lm': ...}`: no images, no LoRA, no extra tokens."""
        config = dataclasses.replace(self.config, xattn=None, lora=None, extra_tokens=())
        return dataclasses.replace(self, config=config)

    @property
    def bridge(self) -> Bridge:
        """The module that acts before every k-th block."""
        return self.config.xattn.module(self.config.lm, self.config.media_width, self.dtype, self.attention_kernel)

    @property
    def embedder(self) -> Embedder:
        """The module of the token embeddings, at both ends."""
        return Embedder(self.config.lm, self.dtype)
