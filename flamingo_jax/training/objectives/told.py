"""Distillation from the frozen language model, which reads words in place of each image; not in the paper.

No answers are needed: any text after any captioned image will do. The model learns to take from an image what the
language model takes from its caption (compare Hinton et al. 2015).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import Frames
from flamingo_jax.inputs.layout import Layout
from flamingo_jax.inputs.rows import Chunk, RowFormat, as_shown, counted, padded, read_image
from flamingo_jax.inputs.tokenizer import ENDS_OF_CHUNK, Tokenizer
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.training.objectives import chunks
from flamingo_jax.training.objectives.noise import NoiseConfig, features
from flamingo_jax.training.objectives.objective import loss_of

TOLD = 6  # Tokens by which the words for an image may exceed its tag.


class Told(NamedTuple):
    """A sequence, and the same sequence with words in place of its images.

    The model must continue both in the same way.

    The loss compares the next token at `at` of the first with that at `told_at` of the second.
    """

    tokens: np.ndarray  # int32 [length].
    phi: np.ndarray  # int32 [length].
    told: np.ndarray  # int32 [length + TOLD * images]: words in place of images, a newline in place of <EOC>.
    at: np.ndarray  # int32 [targets]: positions in `tokens`: the ends of tags, and the tokens of texts.
    told_at: np.ndarray  # int32 [targets]: the same positions in `told`.
    weights: np.ndarray  # float32 [targets]: loss weight of each comparison; 0 is padding.
    newline: np.ndarray  # int32 []: the token that replaces <EOC>.
    used: np.ndarray  # int32 []: number of tokens before the padding.
    unreadable: np.ndarray  # int32 [].
    images: Frames | None = None  # uint8 [images t height width 3] or
    features: Frames | None = None  # float16 [images t s d_v].

    has_logits = True
    compares_rows = False

    @staticmethod
    def lengths(length: int | float, images: int, tag: int) -> tuple[int | float, int | float]:
        """See `Row.lengths`: the words for an image may be longer than its tag."""
        return length, length + TOLD * images

    def total_weight(self) -> Any:
        """What the summed loss of a batch is divided by."""
        return self.weights.sum()

    def counts(self) -> dict[str, Any]:
        """As `Interleaved.counts`."""
        return counted(self, images=self.phi.max(axis=1), documents=self.used > 0, targets=self.weights)

    @classmethod
    def of(
        cls,
        chunks: Sequence[Chunk],
        tokenizer: Tokenizer,
        blank: Frames,
        rng: np.random.Generator,
        row: RowFormat,
    ) -> 'Told':
        """The row of a document in which every image has words (`Chunk.says`); arguments as for `Interleaved.of`.

        row: its `targets` are the most comparisons; 0 is `length`. Of a longer document, the beginning is taken.

        Raises:
          ValueError: an image has no words, or the tokenizer has no <EOC>.
        """
        del rng
        if tokenizer.eoc is None:
            raise UserError(
                'A told row needs the token <EOC>, which this tokenizer does not have. Use another row for this data '
                'set.'
            )
        shown, told = Layout(tokenizer), Layout(tokenizer)
        compared: list[tuple[int, int, float]] = []
        frames: list[Frames] = []
        unreadable, gone = 0, False
        for chunk in chunks:
            if gone and chunk.continues:
                continue
            gone = False
            if chunk.image is not None:
                if not chunk.says:
                    raise UserError(
                        'An image of a told row has no words to replace it. Give words to each image '
                        '(`Chunk.says`), or use another row.'
                    )
                image = read_image(chunk.image, blank) if len(frames) < row.images else None
                unreadable += image is None and len(frames) < row.images
                if image is None:
                    gone = True
                    continue
                frames.append(image)
                shown.image()
                told.text(chunk.says, marks=False)
            weight = max(chunk.weights, default=0.0)
            for text, own in zip(chunk.texts, chunk.weights, strict=True):
                before = len(shown.tokens), len(told.tokens)
                told.continues = shown.continues  # With a space before the text, or without it, in both.
                shown.text(text, marks=chunk.marks)
                told.text(text, marks=chunk.marks)
                for i in range(len(shown.tokens) - before[0]):
                    compared.append((before[0] + i - 1, before[1] + i - 1, float(own)))
            compared.append((len(shown.tokens) - 1, len(told.tokens) - 1, float(weight)))
            shown.end_chunk()
            told.text('\n')
        length = row.length
        room = length + TOLD * row.images
        k = row.targets or length
        compared = [one for one in compared if 0 <= min(one[:2]) and one[0] < length and one[1] < room and one[2]][:k]
        tokens, told_tokens = shown.tokens[:length], told.tokens[:room]
        tags = np.zeros(length, np.int32)
        tags[[at for at in shown.begins if at < length]] = 1
        at, told_at, weights = zip(*compared, strict=True) if compared else ((), (), ())
        return cls(
            tokens=padded(tokens, length, tokenizer.pad, np.int32),
            phi=np.cumsum(tags, dtype=np.int32),
            told=padded(told_tokens, room, tokenizer.pad, np.int32),
            at=padded(at, k, 0, np.int32),
            told_at=padded(told_at, k, 0, np.int32),
            weights=padded(weights, k, 0.0, np.float32),
            newline=np.int32(tokenizer.encode('\n')[-1]),
            used=np.int32(len(tokens)),
            unreadable=np.int32(unreadable),
            **as_shown(frames + [blank] * (row.images - len(frames)), blank),
        )


@loss_of(Told)
def loss_sum(
    model: Flamingo, trained: Params, frozen: Params, batch: Told, key: Key[Array, ''], noise: NoiseConfig
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """The difference between a Flamingo's predictions and those of its teacher, summed over a batch.

    Args:
      batch: rows of this file.
      (the others): as for `next_token.loss_sum`.

    Returns:
      sum over comparisons of weight * KL(told || shown) of the next token, in nats, where the teacher's newline counts
      as <EOC>; and sums for the metrics. `right` counts the comparisons in which both have the same likeliest token.
    """
    params = {**frozen, **trained}
    images = features(model, params, batch, key=key, noise=noise)
    shown = _take(model.hidden(params, images, batch.tokens, batch.phi), batch.at)
    told = _take(model.alone.hidden({'lm': jax.lax.stop_gradient(params['lm'])}, None, batch.told), batch.told_at)

    def of_chunk(trained, frozen, shown, others):
        told, newline, weights = others
        params = {**frozen, **trained}
        shown = jax.nn.log_softmax(model.unembed(params, shown))
        told = jax.nn.softmax(model.alone.unembed({'lm': jax.lax.stop_gradient(params['lm'])}, told))
        is_newline = jnp.arange(told.shape[-1]) == newline[..., None]
        ends = jnp.sum(jnp.where(is_newline, told, 0), axis=-1, keepdims=True)
        extra = [ends if name in ENDS_OF_CHUNK else jnp.zeros_like(ends) for name in model.config.extra_tokens]
        told = jnp.concatenate([jnp.where(is_newline, 0, told), *extra], axis=-1)
        divergence = jnp.sum(told * (jnp.log(jnp.maximum(told, 1e-30)) - shown), axis=-1)
        compared = weights > 0
        loss = jnp.sum(divergence * weights)
        right = jnp.sum(compared & (shown.argmax(-1) == told.argmax(-1)), dtype=jnp.float32)
        return loss, dict(loss=loss, answers=jnp.sum(compared, dtype=jnp.float32), right=right)

    newline = jnp.broadcast_to(batch.newline[:, None], batch.weights.shape)
    loss, sums = chunks.summed(
        of_chunk,
        trained,
        frozen,
        shown,
        others=(jax.lax.stop_gradient(told), newline, batch.weights),
        number=chunks.number(model, *batch.weights.shape),
    )
    return loss, sums | batch.counts()


def _take(y: Float[Array, 'b l d'], places: Int[Array, 'b k']) -> Float[Array, 'b k d']:
    return jnp.take_along_axis(y, places[..., None], axis=1)
