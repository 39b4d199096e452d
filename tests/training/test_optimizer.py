import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flamingo_jax.inference.run import read_latest
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.training.checkpoint import Checkpoints
from flamingo_jax.training.optimizer import OptimizerConfig, make_optimizer, schedule
from flamingo_jax.training.progress import Skipped
from flamingo_jax.training.state import TrainState


@pytest.fixture
def params():
    """Trees named as the model's, all ones."""
    return {
        'resampler': {'latents': jnp.ones((3, 2))},
        'xattn': {'alpha_xattn': jnp.ones(2), 'query': {'kernel': jnp.ones((2, 2))}},
    }


def updates(config, params, grads, steps=3):
    """What each of some steps adds."""
    optimizer = make_optimizer(config, 10)
    state, out = optimizer.init(params), []
    for _ in range(steps):
        update, state = optimizer.update(grads, state, params)
        out.append(update)
    return out


def test_the_paper_warms_up_and_stays():
    rate = schedule(OptimizerConfig(), 500_000)
    for step, expected in ((0, 0.0), (2500, 5e-5), (5000, 1e-4), (5001, 1e-4), (499_999, 1e-4)):
        assert float(rate(step)) == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_a_short_run_ends_in_a_cosine():
    rate = schedule(OptimizerConfig(learning_rate=2.0, warmup_steps=10, final_fraction=0.1), 110)
    for step, expected in ((0, 0.0), (5, 1.0), (10, 2.0), (60, 2.0 * 0.55), (110, 0.2), (200, 0.2)):
        assert float(rate(step)) == pytest.approx(expected, rel=1e-5)
    assert float(schedule(OptimizerConfig(learning_rate=2.0, warmup_steps=0), 100)(0)) == 2.0


def test_the_resampler_does_not_decay(params):
    config = OptimizerConfig(learning_rate=0.5, warmup_steps=0, weight_decay=0.1)
    (update,) = updates(config, params, jax.tree.map(jnp.zeros_like, params), steps=1)
    assert not np.any(update['resampler']['latents'])
    np.testing.assert_allclose(update['xattn']['query']['kernel'], -0.05, rtol=1e-6)


def test_gates_have_a_learning_rate_of_their_own(params):
    grads = jax.tree.map(jnp.ones_like, params)
    plain, factored = (updates(OptimizerConfig(warmup_steps=1, gate_factor=f), params, grads) for f in (1.0, 5.0))
    for a, b in zip(plain, factored, strict=True):
        np.testing.assert_allclose(b['xattn']['alpha_xattn'], 5 * a['xattn']['alpha_xattn'], rtol=1e-6)
        np.testing.assert_array_equal(b['xattn']['query']['kernel'], a['xattn']['query']['kernel'])
        np.testing.assert_array_equal(b['resampler']['latents'], a['resampler']['latents'])
    assert np.any(plain[1]['xattn']['alpha_xattn']) and not np.any(plain[0]['xattn']['alpha_xattn'])


def test_each_tree_may_have_a_learning_rate_of_its_own(params):
    grads = jax.tree.map(jnp.ones_like, params)
    plain = updates(OptimizerConfig(warmup_steps=0), params, grads, steps=1)[0]
    factors = dict(resampler=0.1, xattn=3.0)
    slower = updates(OptimizerConfig(warmup_steps=0, tree_factors=factors, gate_factor=2.0), params, grads, steps=1)[0]
    np.testing.assert_allclose(slower['resampler']['latents'], 0.1 * plain['resampler']['latents'], rtol=1e-6)
    np.testing.assert_allclose(slower['xattn']['query']['kernel'], 3 * plain['xattn']['query']['kernel'], rtol=1e-6)
    np.testing.assert_allclose(slower['xattn']['alpha_xattn'], 6 * plain['xattn']['alpha_xattn'], rtol=1e-6)


def test_an_average_of_the_parameters_is_kept_and_read(params, tmp_path):
    """By hand over three steps, from the state and from a checkpoint; what is trained does not change."""
    grads = jax.tree.map(jnp.ones_like, params)
    kept, plain = OptimizerConfig(warmup_steps=0, average=0.75), OptimizerConfig(warmup_steps=0)
    jax.tree.map(np.testing.assert_array_equal, updates(kept, params, grads), updates(plain, params, grads))
    optimizer, now, seen = make_optimizer(kept, 10), params, []
    state = optimizer.init(now)
    for _ in range(3):
        update, state = optimizer.update(grads, state, now)
        now = optax.apply_updates(now, update)
        seen.append(now)
    weights = np.array([0.75**2, 0.75, 1.0]) / (0.75**2 + 0.75 + 1)
    expected = jax.tree.map(lambda *each: sum(w * x for w, x in zip(weights, each, strict=True)), *seen)

    def checkpoints(config):
        about = dict(model=FlamingoConfig().to_json())
        return Checkpoints(tmp_path, 1, about, recipe={'optimizer.average': config.average})

    run = checkpoints(kept)
    run.save(TrainState(jnp.int32(3), now, state, jax.random.key(0)), {}, Skipped())
    run.close()
    _, read, step = read_latest(tmp_path)
    assert step == 3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), read, expected)
    assert not np.allclose(read['resampler']['latents'], now['resampler']['latents'], rtol=1e-6)
    with pytest.raises(ValueError, match='with an average of its parameters. Set config.optimizer.average to its'):
        checkpoints(plain)


def test_gradients_are_clipped_by_their_global_norm(params):
    """Adam forgets a constant factor of the gradients, so a large and a small one tell what was clipped."""
    small = jax.tree.map(lambda x: 0.01 * x, params)
    large = jax.tree.map(lambda x: 100.0 * x, params)
    config = OptimizerConfig(warmup_steps=0, weight_decay=0.0)

    def second(first):  # The second update, of small gradients after the first.
        optimizer = make_optimizer(config, 10)
        _, state = optimizer.update(first, optimizer.init(params), params)
        return optimizer.update(small, state, params)[0]

    unit = jax.tree.map(lambda x: x / optax.global_norm(large), large)
    for a, b in zip(*(jax.tree.leaves(second(first)) for first in (large, unit)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
