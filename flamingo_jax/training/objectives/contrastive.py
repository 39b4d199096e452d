"""The loss of images and their texts: each must be found among all those of the batch (paper, appendix B.1.3).

`dense` says what the losses are. `ring` computes the same on a mesh, where no device ever holds more than its own
share of the images, of the texts, and a block of their products:

    device 0: images 0, texts 0 -> device 1: images 1, texts 1 -> ... -> device 0

In each turn every device compares its images with the texts that visit it, and passes these on with what they have
gathered: the sum of exponentials over the images that they have met. After as many turns as there are devices, the
texts are home. The backward pass goes round again, recomputes the products and carries the gradients of the texts. So
the memory of a device depends on its own rows alone. (An automatic gradient would keep the visitors of every turn.)
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from flamingo_jax.inputs.images import Frames
from flamingo_jax.inputs.rows import Chunk, RowFormat, as_shown, counted, encode_paired, first_with_text
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.config import ContrastiveConfig
from flamingo_jax.model.contrastive import class_of, paired
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.training.objectives.noise import NoiseConfig, features
from flamingo_jax.training.objectives.objective import loss_of

NEVER = -1e30  # The logit of a row without weight. -inf would have no gradient if all rows are without.
Vectors = Float[Array, 'b width']
# Vectors have length 1 and beta may be 100: bfloat16's rounding of a product would change its probability by a third.
_product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class Paired(NamedTuple):
    """An image and its text, which are told from those of the other rows."""

    text: np.ndarray  # int32 [length]: the text, from <BOS> to <EOS> if the tokenizer has them.
    used: np.ndarray  # int32 []: number of the text's tokens before the padding.
    weight: np.ndarray  # float32 []: 1, or 0 without a text, or if the image cannot be read.
    unreadable: np.ndarray  # int32 []: 1 or 0.
    images: Frames | None = None  # [1 t height width 3] or
    features: Frames | None = None  # [1 t s d_v].

    has_logits = False
    compares_rows = True

    @staticmethod
    def lengths(length: int | float, images: int, tag: int) -> tuple[int | float, int | float]:
        """See `Row.lengths`."""
        return length, 0

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
    ) -> 'Paired':
        """The row of the first image in a document that has a text; arguments as for `Interleaved.of`.

        row: its `length` are the most tokens of the text; a longer text is cut.

        Raises:
          ValueError: `row.images` is not 1.
        """
        del rng
        chunk, image = first_with_text(chunks, blank, row.images, 'A paired')
        text, used = encode_paired(''.join(chunk.texts) if chunk else '', tokenizer, row.length)
        return cls(
            text=text,
            used=used,
            weight=np.float32(image is not None),
            unreadable=np.int32(chunk is not None and image is None),
            **as_shown([blank if image is None else image], blank),
        )


@loss_of(Paired)
def loss_sum(
    model: Flamingo, trained: Params, frozen: Params, batch: Paired, key: Key[Array, ''], noise: NoiseConfig
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """The summed loss of a batch, to be divided by its summed weights.

    Several micro-batches go through the towers one after the other, and again in the backward pass; their vectors are
    compared together. So the loss is that of the whole batch (as in Gao et al. 2021).

    Args:
      batch: rows of this file, cut into micro-batches: [m b ...].
      (the others): as for `next_token.loss_sum`.

    Returns:
      sum over rows of weight * loss (`dense`, or `classified` for 'classes'), and sums for the metrics. `right` counts
      the images whose own text is the nearest, or whose own class is the likeliest.
    """
    m, c = batch.weight.shape[0], model.config.contrastive

    def towers(params, micro, key):
        shown = features(model, params, micro, key=key, noise=noise)
        return paired(model, params, shown, None if c.loss == 'classes' else micro.text, micro.used)

    params, keys = {**frozen, **trained}, jax.random.split(key, m)
    if m == 1:
        images, texts, scale, bias = towers(params, jax.tree.map(lambda x: x[0], batch), keys[0])
    else:
        again = jax.checkpoint(towers, prevent_cse=False)
        images, texts, *_ = jax.lax.map(lambda xs: again(params, *xs)[:2], (batch, keys))
        *_, scale, bias = paired(model, params, None, None, None)
    # The inverse of the cut, after which each device still has its own rows.
    weight = batch.weight.swapaxes(0, 1).reshape(-1)
    if m > 1:
        images, texts = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(len(weight), -1), (images, texts))
    if c.loss == 'classes':
        labels = class_of(batch.text, batch.used, c.classes).swapaxes(0, 1).reshape(-1)
        loss, right = classified(images, params['contrastive']['classes'], labels, weight, scale=scale)
    else:
        mesh = jax.sharding.get_abstract_mesh()
        compare = dense if mesh.empty else functools.partial(ring, mesh=mesh)
        loss, right = compare(c, images, texts, weight, scale=scale, bias=bias)
    sums = dict(
        loss=loss,
        answers=weight.sum(),
        right=right,
    )
    return loss, sums | batch.counts()


def classified(
    images: Vectors,
    classes: Float[Array, 'width classes'],
    labels: Int[Array, ' b'],
    weight: Float[Array, ' b'],
    scale: Float[Array, ''],
) -> tuple[Float[Array, ''], Float[Array, '']]:
    """The cross-entropy of a linear classifier.

    Args:
      images: vectors of length 1, which are multiplied by `scale`.
      classes: the classifier.
      labels: the class of each image's text.
      weight: of each row.

    Returns:
      The sum over rows of weight * cross-entropy, and of weight * whether the image's class is the likeliest.
    """
    logits = scale * _product(images, classes)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.sum(weight * each), jnp.sum(weight * (logits.argmax(axis=1) == labels))


def dense(
    c: ContrastiveConfig,
    images: Vectors,
    texts: Vectors,
    weight: Float[Array, ' b'],
    scale: Float[Array, ''],
    bias: Float[Array, ''],
) -> tuple[Float[Array, ''], Float[Array, '']]:
    """The loss of a batch on one device, which holds the products of all images with all texts.

    'softmax' is the sum of two cross-entropies, of an image's text among all texts and of a text's image among all
    images. The paper adds the two; CLIP has half of it. Label smoothing gives each of the b candidates
    smoothing / b of the target. 'sigmoid' asks of each pair whether it belongs together (Zhai et al. 2023, equation 1).

    Args:
      images, texts: vectors of length 1. Row i of both belongs together.
      weight: of each row; a row of weight 0 is no candidate either.
      scale: beta, the inverse temperature.
      bias: of the sigmoid; 0 for the softmax.

    Returns:
      The sum over rows of weight * loss, and of weight * whether the nearest text of the image is its own.
    """
    both, logits = _block(images, texts, weight, weight, scale=scale, bias=bias)
    own, masked, eye = jnp.diagonal(logits), jnp.where(both, logits, NEVER), jnp.eye(len(weight), dtype=bool)
    # Its own is left out of the others: the compiler may round it differently there.
    right = jnp.sum(weight * (own >= jnp.where(eye, NEVER, masked).max(axis=1)))
    if c.loss == 'sigmoid':
        sign = jnp.where(eye, 1.0, -1.0)
        each = -jnp.where(both, jax.nn.log_sigmoid(sign * logits), 0).sum(axis=1)
    else:
        each = -2 * (1 - c.smoothing) * own
        for axis in (0, 1):
            mean = jnp.where(both, logits, 0).sum(axis) / jnp.maximum(jnp.sum(weight > 0), 1)
            each += jax.nn.logsumexp(masked, axis) - c.smoothing * mean
    return jnp.sum(weight * each), right


def ring(
    c: ContrastiveConfig,
    images: Vectors,
    texts: Vectors,
    weight: Float[Array, ' b'],
    scale: Float[Array, ''],
    bias: Float[Array, ''],
    *,
    mesh: Mesh | AbstractMesh,
) -> tuple[Float[Array, ''], Float[Array, '']]:
    """`dense`, with the rows in chunks over all devices of a mesh. Arguments and results are the same.

    Rows of weight 0 are added if the devices do not divide the batch.
    """
    more = -len(weight) % mesh.size
    images, texts = (jnp.pad(x, ((0, more), (0, 0))) for x in (images, texts))
    return _ring(c, mesh, images, texts, jnp.pad(weight, (0, more)), scale, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _ring(c, mesh, images, texts, weight, scale, bias):
    return _forward(c, mesh, images, texts, weight, scale, bias)[0]


def _forward(c, mesh, images, texts, weight, scale, bias):
    rows, one = PartitionSpec(mesh.axis_names), PartitionSpec()
    run = jax.shard_map(
        functools.partial(_forward_here, c, mesh),
        mesh=mesh,
        in_specs=(rows, rows, rows, one, one),
        out_specs=((one, one), (rows, rows)),
        check_vma=False,
    )
    out, sums = run(images, texts, weight, scale, bias)
    return out, (images, texts, weight, scale, bias, sums)


def _backward(c, mesh, kept, cotangents):
    images, texts, weight, scale, bias, sums = kept
    rows, one = PartitionSpec(mesh.axis_names), PartitionSpec()
    run = jax.shard_map(
        functools.partial(_backward_here, c, mesh),
        mesh=mesh,
        in_specs=(rows, rows, rows, one, one, (rows, rows), one),
        out_specs=(rows, rows, one, one),
        check_vma=False,
    )
    # The second result counts; it has no gradient. Nor have weights.
    of_images, of_texts, of_scale, of_bias = run(images, texts, weight, scale, bias, sums, cotangents[0])
    return of_images, of_texts, jnp.zeros_like(weight), of_scale, of_bias


_ring.defvjp(_forward, _backward)


def _forward_here(c, mesh, images, texts, weight, scale, bias):
    """One device's part: (loss, right) of the whole batch, and the log-sums of exponentials of its rows and columns."""
    n = len(weight)

    def turn(k, carry):
        (texts, others, columns), rows, best, own, total = carry
        both, logits = _block(images, texts, weight, others, scale=scale, bias=bias)
        masked, at_home = jnp.where(both, logits, NEVER), (k == 0) & jnp.eye(n, dtype=bool)
        own = jnp.where(k == 0, jnp.diagonal(logits), own)
        best = jnp.maximum(best, jnp.where(at_home, NEVER, masked).max(axis=1))
        if c.loss == 'sigmoid':
            sign = jnp.where(at_home, 1.0, -1.0)
            total -= jnp.sum(weight[:, None] * jnp.where(both, jax.nn.log_sigmoid(sign * logits), 0))
        else:
            rows = jnp.logaddexp(rows, jax.nn.logsumexp(masked, axis=1))
            columns = jnp.logaddexp(columns, jax.nn.logsumexp(masked, axis=0))
            total += jnp.sum((weight[:, None] + others) * jnp.where(both, logits, 0))
        return _pass_on(mesh, (texts, others, columns)), rows, best, own, total

    none, zeros = jnp.full(n, NEVER), jnp.zeros(n)
    start = ((texts, weight, none), none, none, zeros, jnp.zeros(()))
    (*_, columns), rows, best, own, total = jax.lax.fori_loop(0, mesh.size, turn, start)
    if c.loss == 'softmax':
        each = rows + columns - 2 * (1 - c.smoothing) * own
        total = jnp.sum(weight * each) - c.smoothing * total / _number(mesh, weight)
    right = jnp.sum(weight * (own >= best))
    return jax.lax.psum((total, right), mesh.axis_names), (rows, columns)


def _backward_here(c, mesh, images, texts, weight, scale, bias, sums, cotangent):
    """One device's part: the gradients of its images and texts, and those of scale and bias over all devices."""
    n, number = len(weight), _number(mesh, weight)
    rows, columns = sums

    def turn(k, carry):
        (texts, others, columns, of_texts), of_images, of_scale, of_bias = carry
        both, logits = _block(images, texts, weight, others, scale=scale, bias=bias)
        at_home = (k == 0) & jnp.eye(n, dtype=bool)
        if c.loss == 'sigmoid':
            sign = jnp.where(at_home, 1.0, -1.0)
            of_logits = -weight[:, None] * sign * jax.nn.sigmoid(-sign * logits)
        else:
            mine = weight[:, None] * (jnp.exp(logits - rows[:, None]) - c.smoothing / number)
            theirs = others * (jnp.exp(logits - columns) - c.smoothing / number)
            of_logits = mine + theirs - 2 * (1 - c.smoothing) * jnp.where(at_home, weight, 0)
        of_logits = jnp.where(both, cotangent * of_logits, 0)
        of_images += scale * _product(of_logits, texts)
        of_texts += scale * _product(of_logits.T, images)
        of_scale += jnp.sum(of_logits * (logits - bias)) / scale
        of_bias += jnp.sum(of_logits)
        return _pass_on(mesh, (texts, others, columns, of_texts)), of_images, of_scale, of_bias

    zeros, zero = jnp.zeros_like(images), jnp.zeros(())
    start = ((texts, weight, columns, zeros), zeros, zero, zero)
    (*_, of_texts), of_images, of_scale, of_bias = jax.lax.fori_loop(0, mesh.size, turn, start)
    of_scale, of_bias = jax.lax.psum((of_scale, of_bias), mesh.axis_names)
    return of_images, of_texts, of_scale, of_bias


def _block(images, texts, weight, others, scale, bias):
    """Which pairs are of two rows with weight, and the logits of all."""
    return (weight > 0)[:, None] & (others > 0), scale * _product(images, texts.T) + bias


def _pass_on(mesh, visitors):
    """Sends the visitors to the next device of the ring."""
    step = [(i, (i + 1) % mesh.size) for i in range(mesh.size)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, mesh.axis_names, step), visitors)


def _number(mesh, weight):
    """The number of rows with weight on all devices, at least 1."""
    return jnp.maximum(jax.lax.psum(jnp.sum(weight > 0), mesh.axis_names), 1)
