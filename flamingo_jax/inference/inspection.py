"""What the model saw while it wrote an answer: the attention to the images, the gates, and the likeliest next tokens.

The answer is read again in one pass. Its cross-attention weights are those with which `attend` sums the values; they
are computed from the same queries and keys.

A word attends to media tokens, not to places in an image. To lay its attention over the image, each media token's
own attention in the resampler is followed back to the features (attention rollout: Abnar and Zuidema 2020, with equal
shares for a layer's attention and its residual). This is a summary, not a cause.
"""

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flamingo_jax.errors import UserError
from flamingo_jax.inference import decode
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.prompts import Prompt, encode_prompt
from flamingo_jax.model.attention import attention_weights
from flamingo_jax.model.connectors.connector import ConnectorConfig
from flamingo_jax.model.flamingo import Flamingo, Media, Params
from flamingo_jax.model.states import decoded


@dataclasses.dataclass(frozen=True)
class Look:
    """For an answer of a tokens, a + 1 positions: those that chose each token, and the one after the last token.

    Tokens that are only together whole letters, such as the bytes of a script that the vocabulary lacks, count as one.

    Attributes:
      tokens: the answer's tokens, as text.
      likeliest: at each position the likeliest tokens with their probabilities, the likeliest first; of tokens that
        count as one, at the first. A byte is written as `<0xE1>`.
      weights: cross-attention in each of x gated blocks, over r media tokens of each of n images, averaged over
        heads, and over tokens that count as one. It is 0 for images that a position may not see.
      places: for each image, how much each of its media tokens draws on each place of each frame. They sum to 1, or
        to less if the vision encoder has a class token, which has no place.
      gates: tanh(alpha) of each block's attention and feed-forward, 1 without gates; vectors are averaged.
    """

    tokens: list[str]
    likeliest: list[list[tuple[str, float]]]
    weights: Float[np.ndarray, 'x a_1 n r']
    places: list[Float[np.ndarray, 'r t side side']]
    gates: Float[np.ndarray, 'x 2']

    def over(self, image: int) -> Float[np.ndarray, 'x a_1 t side side']:
        """The attention of each position in each block, laid over an image's frames.

        It sums to that on the image, less what a class token has of it.

        image: its number in the prompt, from 0.
        """
        return np.einsum('xar,rthw->xathw', self.weights[:, :, image], self.places[image])


def look(flamingo: Pretrained, prompt: Prompt, answer: list[int], likeliest: int = 5) -> Look:
    """Reads a prompt and its answer again.

    Args:
      flamingo: on one device.
      prompt: as for `generate`.
      answer: tokens, from `Pretrained.write`.
      likeliest: how many next tokens to report.

    Raises:
      ValueError: the prompt is not valid, or together with the answer exceeds the context; or the model has no
        cross-attention (`BridgeConfig.attends`).
    """
    if flamingo.config.xattn is not None and not flamingo.config.xattn.attends:
        raise UserError('This model has no cross-attention to look at: its images are soft words in the text.')
    ids, frames = encode_prompt(prompt, flamingo.tokenizer, flamingo.image_format)
    first, context = len(ids) - 1, flamingo.config.lm.context
    ids = ids + answer
    if len(ids) > context:
        raise UserError(f'A prompt and an answer of {len(ids)} tokens exceed the context of {context} tokens.')
    model, params = flamingo.model, flamingo.params
    features = [x if x.dtype != np.uint8 else flamingo.features(x) for x in frames]
    media = decode.encode_images(model, params, [features])
    length = min(-(-len(ids) // 32) * 32, context)  # Few lengths, to compile rarely.
    tokens = np.full((1, length), flamingo.tokenizer.pad, np.int32)
    tokens[0, : len(ids)] = ids
    logits, weights = _read_again(model, params, media, tokens, first + np.arange(length))
    begins, asked, gates = _letters(flamingo, answer), len(answer) + 1, _gates(params)
    if weights is None:
        by_image = np.zeros((len(gates), len(begins), 0, 0), np.float32)
    else:
        by_image = np.asarray(weights[:, 0, :asked]).reshape(len(gates), asked, -1, model.config.media_tokens)
        number = np.diff([*begins, asked]).astype(np.float32)
        by_image = np.add.reduceat(by_image, begins, axis=1) / number[:, None, None]
    p = np.asarray(jax.nn.softmax(logits[0, np.array(begins)], axis=-1))
    best = np.argsort(-p, axis=-1)[:, :likeliest]
    return Look(
        tokens=[flamingo.tokenizer.decode(answer[i:j]) for i, j in itertools.pairwise(begins)],
        likeliest=[
            [(_name(flamingo, i), float(row[i])) for i in top] for row, top in zip(p, best.tolist(), strict=True)
        ],
        weights=by_image[:, :, : len(frames)],
        places=[_squares(np.asarray(_places(model, params, np.asarray(x, np.float32)))) for x in features],
        gates=gates,
    )


def _letters(flamingo: Pretrained, answer: list[int]) -> list[int]:
    """Where the fewest tokens begin that are together whole letters; last, the length of the answer.

    A token with bytes that no letter has is alone.
    """
    begins = [0]
    while (begin := begins[-1]) < len(answer):
        ends = range(begin + 1, len(answer) + 1)
        whole = (end for end in ends if '\ufffd' not in flamingo.tokenizer.decode(answer[begin:end]))
        begins.append(next(whole, begin + 1))
    return begins


def _name(flamingo: Pretrained, token: int) -> str:
    """A token as text; one that ends an answer by its role."""
    return '<EOS>' if token in flamingo.tokenizer.ends else flamingo.tokenizer.shown(token)


def _gates(params: Params) -> Float[np.ndarray, 'x 2']:
    blocks = params.get('xattn', {})
    alphas = [blocks.get(name) for name in ('alpha_xattn', 'alpha_dense')]
    number = len(jax.tree.leaves(blocks)[0]) if blocks else 0
    return np.stack(
        [
            np.ones(number) if alpha is None else np.tanh(np.asarray(alpha, np.float32)).reshape(number, -1).mean(1)
            for alpha in alphas
        ],
        axis=1,
    ).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _read_again(
    model: Flamingo, params: Params, media: Media | None, tokens: Int[Array, '1 l'], at: Int[Array, 'l']
) -> tuple[Float[Array, '1 l v'], Float[Array, 'x 1 l m'] | None]:
    """Logits, and cross-attention weights averaged over heads, at some positions (repeated at the end)."""
    c, y, placed = model.config, model.embed(params, tokens), model.place(tokens)
    states = decoded(model, params, y, placed, media)
    logits = model.unembed(params, states[-1][:, at])
    if media is None:
        return logits, None
    embedder = {'params': params['lm']['embedder']}
    start: Any = model.embedder.apply(embedder, y, placed.positions, method='add_positions')
    before = jnp.concatenate([start[None], states])[c.xattn.first : c.lm.depth : c.xattn.every]
    mask = c.xattn.seen(placed, media, c.media_tokens)

    def of_block(block):
        p, y, keys_values = block
        q = _captured(model.bridge, p, y, keys_values, mask)['query']
        ((keys, _),) = keys_values
        heads = attention_weights(q, keys, mask)
        return heads.reshape(q.shape[0], q.shape[2], q.shape[1], -1).mean(axis=1)[:, at]

    return logits, jax.lax.map(of_block, (params['xattn'], before, media.keys_values))


@functools.partial(jax.jit, static_argnums=0)
def _places(model: Flamingo, params: Params, features: Float[Array, 't s d_v']) -> Float[Array, 'r t s']:
    """How much each media token of an image draws on each of its features; sums to 1."""
    c, (t, s, _) = model.config.resampler or ConnectorConfig(), features.shape
    captured = {}
    if c.latents:
        connector = c.module(model.config.lm.width, model.dtype)
        captured = _captured(connector, params['resampler'], features[None, None])
    drawn = c.sources(captured, t, s)
    return (drawn / drawn.sum(axis=1, keepdims=True)).reshape(-1, t, s)


def _captured(module, params, *args) -> dict:
    """The queries and keys of a module's attention, after their norms if it has them, as a tree by module."""

    def wanted(submodule, method):
        return method == '__call__' and submodule.name in ('query', 'key', 'norm_query', 'norm_key')

    _, found = module.apply({'params': params}, *args, capture_intermediates=wanted, mutable=['intermediates'])

    def plain(tree):
        tree = {name: sub['__call__'][0] if '__call__' in sub else plain(sub) for name, sub in tree.items()}
        return tree | {name: tree[f'norm_{name}'] for name in ('query', 'key') if f'norm_{name}' in tree}

    return plain(found['intermediates'])


def _squares(places: Float[np.ndarray, 'r t s']) -> Float[np.ndarray, 'r t side side']:
    """Places in rows and columns, without a class token."""
    r, t, s = places.shape
    side = math.isqrt(s)
    return places[:, :, s - side * side :].reshape(r, t, side, side)
