"""A new objective is one file. Here the file is this one; nothing else of the package is told of it."""

import json
from typing import NamedTuple

import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.layout import Layout
from flamingo_jax.inputs.rows import counted, padded
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.planning import flops
from flamingo_jax.training.config import dataset, source_of
from flamingo_jax.training.objectives.noise import NoiseConfig
from flamingo_jax.training.objectives.objective import loss_of
from flamingo_jax.training.optimizer import OptimizerConfig, make_optimizer
from flamingo_jax.training.state import new_state
from flamingo_jax.training.step import make_step
from flamingo_jax.training.validation import Validation

pytestmark = pytest.mark.usefixtures('quick_compilation')


class Quiet(NamedTuple):
    """A text whose last state is to be small."""

    tokens: np.ndarray
    used: np.ndarray
    unreadable: np.ndarray
    images: None = None
    features: None = None

    has_logits = False
    compares_rows = False

    @classmethod
    def of(cls, chunks, tokenizer, blank, rng, row):
        layout = Layout(tokenizer)
        for chunk in chunks:
            layout.text(''.join(chunk.texts), marks=False)
        tokens = layout.tokens[: row.length]
        return cls(padded(tokens, row.length, tokenizer.pad, np.int32), np.int32(len(tokens)), np.int32(0))

    @staticmethod
    def lengths(length, images, tag):
        return length, 0

    def total_weight(self):
        return (self.used > 0).sum() * 1.0

    def counts(self):
        return counted(self, images=0 * self.used, documents=self.used > 0, targets=0 * self.used)


@loss_of(Quiet)
def loss_sum(model, trained, frozen, batch, key, noise):
    y = model.hidden({**frozen, **trained}, None, batch.tokens)
    last = jnp.take_along_axis(y, jnp.maximum(batch.used - 1, 0)[:, None, None], axis=1)[:, 0]
    loss = jnp.sum(jnp.square(last).mean(axis=-1) * (batch.used > 0))
    return loss, dict(loss=loss, answers=batch.total_weight(), right=0 * loss) | batch.counts()


def test_a_new_objective_is_a_file(tmp_path, pretrained, config):
    """A data set names it; its rows are made, learned from in micro-batches, validated and counted."""
    texts = [' dax', ' dax kuv', ' Output: dax', ' kuv']
    lines = (json.dumps([text]) for text in texts)
    (tmp_path / 'own.jsonl').write_text('\n'.join(lines))
    fields = dict(path=str(tmp_path / 'own.jsonl'), length=8, images=0, batch_size=4, micro_batches=2, row=Quiet)
    source = source_of(dataset(Documents, **fields))
    images = ImageFormat(32)
    opened, rng = source.open(images), np.random.default_rng(0)
    rows = [source.make_row([opened.document(i, rng)], pretrained.tokenizer, None, rng) for i in range(4)]
    batch = jax.tree.map(lambda *of: np.stack(of), *rows)
    assert type(batch) is Quiet and batch.used.min() > 1
    empty = source.empty_row(pretrained.tokenizer, images)
    assert jax.tree.map(np.shape, empty) == jax.tree.map(np.shape, rows[0])

    model, mesh = pretrained.model.alone, meshes.make_mesh(1, 1, 1, devices=jax.devices()[:1])
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2, warmup_steps=1), 3)
    state = new_state(model, optimizer, ('lm',), 0, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    y = np.asarray(model.hidden(dict(state.params), None, jnp.asarray(batch.tokens)))
    expected = np.square(y[np.arange(4), batch.used - 1]).mean()
    step = make_step(model, optimizer, dict(own=1.0), dict(own=2), NoiseConfig(), shardings)
    found = []
    for _ in range(3):
        state, metrics = step(state, {}, dict(own=batch))
        found.append(float(metrics['own/loss']))
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)
    assert found[-1] < found[0] and float(metrics['own/documents']) == 4
    validation = Validation(model, dict(own=grain.MapDataset.source([batch])), dict(own=source), 1, shardings)
    assert validation._means(state.params, {}, batch, micro_batches=2)[0]['loss'].compute() < found[0]
    assert flops.train_step(model.config, ('lm',), dict(own=source))['lm'] > 0
