"""The loss of a data set whose images are aligned with their texts; not in the paper."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from flamingo_jax.inputs.images import Frames
from flamingo_jax.inputs.layout import Layout
from flamingo_jax.inputs.rows import Batch, Chunk, RowFormat, as_shown, counted, first_with_text, padded
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.model.language_model import as_read
from flamingo_jax.model.states import states
from flamingo_jax.training.objectives.noise import NoiseConfig, features
from flamingo_jax.training.objectives.objective import loss_of


class Aligned(NamedTuple):
    """An image alone and its text alone, which must come to mean the same."""

    tokens: np.ndarray  # int32 [s]: the image's tag with the tokens before and after it.
    phi: np.ndarray  # int32 [s].
    weight: np.ndarray  # float32 []: 1, or 0 if no image could be read.
    text: np.ndarray  # int32 [length]: <BOS> and the text.
    used: np.ndarray  # int32 []: number of the text's tokens before the padding.
    unreadable: np.ndarray  # int32 []: 1 or 0.
    images: Frames | None = None  # [1 t height width 3] or
    features: Frames | None = None  # [1 t s d_v].
    read: np.ndarray | None = None  # [depth d]: the text's states, if they are known; None computes them.

    has_logits = False
    compares_rows = False

    @staticmethod
    def lengths(length: int | float, images: int, tag: int) -> tuple[int | float, int | float]:
        """See `Row.lengths`: of the tag with <BOS>, and of the text."""
        return 1 + tag, length

    def total_weight(self) -> Any:
        """What the summed loss of a batch is divided by."""
        return self.weight.sum()

    def counts(self) -> dict[str, Any]:
        """As `Interleaved.counts`. The tokens are those of the texts."""
        return counted(self, images=self.weight, documents=self.weight, targets=0 * self.weight)

    @classmethod
    def of(
        cls,
        chunks: Sequence[Chunk],
        tokenizer: Tokenizer,
        blank: Frames,
        rng: np.random.Generator,
        row: RowFormat,
    ) -> 'Aligned':
        """The row of the first image in a document that has a text; arguments as for `Interleaved.of`.

        row: its `length` are the most tokens of the text, <BOS> included; a longer text is cut.

        Raises:
          ValueError: `row.images` is not 1.
        """
        del rng
        chunk, image = first_with_text(chunks, blank, row.images, 'An aligned')
        shown, text = Layout(tokenizer), Layout(tokenizer)
        shown.image()
        shown.end_chunk()
        if tokenizer.eoc is None:  # The state is read at the token that predicts the next one.
            shown.end()
        for segment in chunk.texts if chunk else ():
            text.text(segment, marks=False)
        text = text.tokens[: row.length]
        return cls(
            tokens=np.array(shown.tokens, np.int32),
            phi=(np.arange(len(shown.tokens)) >= shown.begins[0]).astype(np.int32),
            weight=np.float32(image is not None),
            text=padded(text, row.length, tokenizer.pad, np.int32),
            used=np.int32(len(text)),
            unreadable=np.int32(chunk is not None and image is None),
            **as_shown([blank if image is None else image], blank),
        )


@loss_of(Aligned)
def loss_sum(
    model: Flamingo, trained: Params, frozen: Params, batch: Aligned, key: Key[Array, ''], noise: NoiseConfig
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """The distance of each image's states from those of its text, summed over a batch; not in the paper.

    After every block of the language model, the state at the image's tag is compared with the state of the frozen
    language model, which sees no image, at the end of the image's text. If they agree, the language model treats
    the image like its text. The next-token loss alone does not lead there: the quickest way to predict the next
    token is to change the last state, and the gates of earlier blocks close.

    The states are compared as the next block reads them, after its norm. In the states themselves, a few channels can
    be a thousand times as large as the others, and nearly the same for all texts (in Gemma 3 they are).

    Args:
      batch: rows of this file.
      (the others): as for `next_token.loss_sum`.

    Returns:
      sum over rows of weight * the mean over blocks of |state - text's state|^2 / |text's state|^2, both normed; and
      sums for the metrics, `right` counts the rows whose last state is nearest to that of their own text, among all
      texts in the (micro-)batch.
    """
    params = {**frozen, **trained}
    weights = batch.weight
    key_features, key_blend = jax.random.split(key)
    other = jax.random.uniform(key_blend, weights.shape, maxval=noise.blend)
    other = jnp.where(jnp.roll(weights, 1) > 0, other, 0)

    def blended(x: Float[Array, 'b ...']) -> Float[Array, 'b ...']:
        if not noise.blend:
            return x
        share = other.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)
        return x + share * (jnp.roll(x, 1, axis=0) - x)

    images = blended(features(model, params, batch, key=key_features, noise=noise))
    shown = states(model, params, images, batch.tokens[:, :-1], batch.phi[:, :-1])[:, :, -1]
    read = batch.read if batch.read is not None else text_states(model, params, batch.text, batch.used)
    read = blended(read.astype(jnp.float32)).swapaxes(0, 1)  # [depth b d], as `shown`.
    shown, read = (as_read(model.config.lm, params['lm'], x) for x in (shown, read))
    read = jax.lax.stop_gradient(read)
    distance = jnp.mean(jnp.sum((shown - read) ** 2, axis=-1) / jnp.sum(read**2, axis=-1), axis=0)
    between = jnp.sum((shown[-1][:, None] - read[-1]) ** 2, axis=-1)  # [image text]
    right = jnp.diagonal(between) <= between.min(axis=1)  # Several rows may have the same text.
    sums = dict(
        loss=jnp.sum(distance * weights),
        answers=weights.sum(),
        right=jnp.sum(right * weights),
    )
    return sums['loss'], sums | batch.counts()


def text_states(
    model: Flamingo, params: Params, text: Int[Array, 'b l'], used: Int[Array, ' b']
) -> Float[Array, 'b depth d']:
    """The states of the frozen language model, which sees no image, at the end of each text, after every block."""
    every = states(model.alone, {'lm': params['lm']}, None, text)
    return jnp.take_along_axis(every, (used - 1)[None, :, None, None], axis=2)[:, :, 0].swapaxes(0, 1)


KEPT = 2**32  # Bytes of states that are remembered.


class TextStates:
    """Reads each text once and remembers its states, since reading the texts is more than half of an aligned step.

    A text has `depth * d` numbers of the computation's dtype. Those that were met last are kept, up to `KEPT` bytes.
    """

    def __init__(self, model: Flamingo, frozen: Params):
        """Args: the model and the frozen trees. If the language model is trained, nothing can be remembered."""
        # Several processes read different texts, and would wait for one another.
        self._lm = {'lm': frozen['lm']} if 'lm' in frozen and jax.process_count() == 1 else None
        alone = dataclasses.replace(model, attention_kernel='plain')  # A mesh does not divide one row.
        self._read = jax.jit(lambda lm, text, used: text_states(alone, lm, text, used)[0])
        self._known: dict[bytes, np.ndarray] = {}

    def __call__(self, batch: Batch) -> Batch:
        """The batch, with the states of its texts if it is aligned."""
        if self._lm is None or not isinstance(batch, Aligned):
            return batch
        keys = [text[:used].tobytes() for text, used in zip(batch.text, batch.used, strict=True)]
        rows = {key: row for row, key in enumerate(keys) if key not in self._known}
        # Each alone, so that its states do not depend on other texts, and a resumed run computes the same. All begin
        # before the first is waited for.
        new = {
            key: self._read(self._lm, batch.text[row : row + 1], batch.used[row : row + 1]) for key, row in rows.items()
        }
        met = [key for key in dict.fromkeys(keys) if key not in rows]  # In their order, so that the oldest go first.
        states = {key: self._known.pop(key) for key in met} | jax.device_get(new)
        self._known |= states
        while len(self._known) * states[keys[0]].nbytes > KEPT and len(self._known) > 1:
            del self._known[next(iter(self._known))]
        return batch._replace(read=np.stack([states[key] for key in keys]))
