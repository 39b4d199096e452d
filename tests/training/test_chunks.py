"""The loss in chunks against the loss in one piece: value, gradients, metrics, and memory."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.inputs.rows import Interleaved
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import rules
from flamingo_jax.training.objectives import chunks, next_token, told
from flamingo_jax.training.objectives.noise import NoiseConfig
from tests.training.test_losses import told_row

pytestmark = pytest.mark.usefixtures('quick_compilation')


def text_model(config, **lm) -> Flamingo:
    """The tests' model without images, one block deep."""
    lm = dataclasses.replace(config.lm, depth=1, **lm)
    return Flamingo(dataclasses.replace(config, lm=lm, xattn=None, resampler=None, vision=None, image_tag=()))


def rows(tokens):
    rng = np.random.default_rng(0)
    return Interleaved(
        tokens=jnp.array(tokens),
        phi=jnp.cumsum(jnp.array(tokens) == 7, axis=1, dtype=jnp.int32),
        weights=jnp.array(rng.choice(np.float32([0, 0.5, 1]), tokens.shape)),
        used=jnp.full(len(tokens), tokens.shape[1]),
        unreadable=jnp.zeros(len(tokens), jnp.int32),
    )


@pytest.mark.parametrize('loss, lm_trained', [(next_token, True), (told, False)])
def test_chunks_have_the_loss_and_gradients_of_the_whole(config, tokens, features, monkeypatch, loss, lm_trained):
    """Five positions a chunk, which does not divide their number."""
    model = text_model(config)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))
    if loss is next_token:
        batch = rows(tokens)
    else:
        told = told_row(features[0].astype(np.float16))
        batch = jax.tree.map(lambda x: jnp.asarray(x)[None], told)._replace(
            newline=jnp.array([14], jnp.int32), features=None
        )
    names = {'extra_tokens', *(['lm'] if lm_trained else [])}
    trained = {name: tree for name, tree in params.items() if name in names}
    frozen = {name: tree for name, tree in params.items() if name not in names}

    @jax.jit
    def of(trained):
        def scaled(trained):
            loss_sum, sums = loss.loss_sum(model, trained, frozen, batch, jax.random.key(0), NoiseConfig())
            return 0.3 * loss_sum, sums

        return jax.value_and_grad(scaled, has_aux=True)(trained)

    whole = of(trained)
    a_position = chunks.logits_bytes(model, len(batch.tokens), 1)
    monkeypatch.setattr(chunks, 'MOST', int(5 * a_position))
    assert chunks.number(model, len(batch.tokens), 16) == 4
    jax.clear_caches()
    in_chunks = of(trained)
    for a, b in zip(jax.tree.leaves(in_chunks), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(np.abs(b).max(), 1e-3))


def test_the_logits_of_all_positions_are_never_in_memory(config, monkeypatch):
    """The compiler's own count, of loss and gradient: less than the logits of all positions."""
    model = text_model(config, vocab_size=50_000, context=256)
    monkeypatch.setattr(chunks, 'MOST', 2**22)
    shapes = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0)))
    batch = jax.eval_shape(lambda: rows(np.zeros((4, 256), np.int32)))

    def loss(trained, frozen, batch):
        return next_token.loss_sum(model, trained, frozen, batch, jax.random.key(0), NoiseConfig())[0]

    trained, frozen = {'extra_tokens': shapes['extra_tokens']}, {'lm': shapes['lm']}
    temporaries = jax.jit(jax.grad(loss)).lower(trained, frozen, batch).compile().memory_analysis().temp_size_in_bytes
    assert temporaries < 0.5 * chunks.logits_bytes(model, 4, 256)


def test_a_device_counts_its_own_rows_and_vocabulary(model):
    """On 2 x 2 x 2 devices it has a quarter of the rows and half of the vocabulary."""
    mesh = meshes.make_mesh(2, 2, 2)
    whole = chunks.logits_bytes(model, 8, 100)
    assert chunks.logits_bytes(model, 8, 100, mesh) == whole / 8
    with rules.activations(mesh):
        assert chunks.logits_bytes(model, 8, 100) == whole / 8
    assert chunks.number(model, 8, 100) == 1 and rules.shards('batch') == 1
