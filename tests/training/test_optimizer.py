import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flamingo_jax.checkpoints.run_format import read_latest
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.vision.beit import BEiTConfig
from flamingo_jax.model.vision.efficientnet import EfficientNetConfig
from flamingo_jax.model.vision.nfnet import NFNetConfig
from flamingo_jax.model.vision.vit import ViTConfig
from flamingo_jax.training.checkpoint import Checkpoints
from flamingo_jax.training.optimizer import OptimizerConfig, _clip, is_stacked, make_optimizer, schedule
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


def test_the_scalars_of_a_contrastive_loss_do_not_decay():
    """But every other bias does, as in the paper's optimizer, which exempts the resampler alone."""
    config = OptimizerConfig(learning_rate=0.5, warmup_steps=0, weight_decay=0.1)
    scalars = dict(log_scale=jnp.ones(()), bias=jnp.ones(()))
    params = {'contrastive': scalars | dict(image=dict(kernel=jnp.ones((2, 2)))), 'lm': dict(bias=jnp.ones(2))}
    (update,) = updates(config, params, jax.tree.map(jnp.zeros_like, params), steps=1)
    assert not any(np.any(update['contrastive'][name]) for name in scalars)
    np.testing.assert_allclose(update['contrastive']['image']['kernel'], -0.05, rtol=1e-6)
    np.testing.assert_allclose(update['lm']['bias'], -0.05, rtol=1e-6)


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
    with pytest.raises(ValueError, match='with an average of its parameters. Set config.optimizer.average to 0.75'):
        checkpoints(plain)
    with pytest.raises(ValueError, match='Set config.optimizer.average to 0.75'):  # Two decays have no common average.
        checkpoints(dataclasses.replace(kept, average=0.9))


def test_no_clipping_is_0(params):
    """As of `clip_trunk` and `average`, and not a gradient of 0."""
    steps = [updates(OptimizerConfig(warmup_steps=0, clip=clip), params, params, steps=2) for clip in (0.0, 1e9)]
    jax.tree.map(np.testing.assert_array_equal, *steps)


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


def test_contrastive_pretraining_ends_at_zero_in_a_line():
    rate = schedule(OptimizerConfig(learning_rate=1e-3, warmup_steps=0, decay='linear', final_fraction=0.0), 100)
    for step, expected in ((0, 1e-3), (25, 7.5e-4), (100, 0.0)):
        assert float(rate(step)) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    with pytest.raises(ValueError, match="'cosine' or 'linear', not 'step'"):
        schedule(OptimizerConfig(decay='step'), 100)


def test_a_trunk_is_clipped_channel_by_channel_and_block_by_block():
    """AGC (Brock et al. 2021, equation 3): a channel's gradient is at most 0.01 of its weights; the rest by `clip`."""
    rng = np.random.default_rng(0)
    kernel, grad = (rng.standard_normal((3, 2, 2, 4, 5)).astype(np.float32) for _ in range(2))
    grad[0] *= 1e-4  # Small enough to stay, if it is not mixed with the other blocks.
    params = {
        'vision': {'trunk': {'rest_0': {'kernel': kernel}, 'stem': {'kernel': kernel[1]}}},
        'lm': {'w': kernel[0]},
    }
    grads = {'vision': {'trunk': {'rest_0': {'kernel': grad}, 'stem': {'kernel': grad[1]}}}, 'lm': {'w': grad[1]}}
    clipped, _ = _clip(OptimizerConfig(clip=10.0, clip_trunk=0.01)).update(grads, optax.EmptyState(), params)

    def norms(x):
        return np.sqrt((x.reshape(-1, x.shape[-1]) ** 2).sum(axis=0))

    stack = clipped['vision']['trunk']['rest_0']['kernel']
    np.testing.assert_array_equal(stack[0], grad[0])
    for i in (1, 2):
        np.testing.assert_allclose(stack[i], grad[i] * 0.01 * norms(kernel[i]) / norms(grad[i]), rtol=1e-5)
    np.testing.assert_allclose(clipped['vision']['trunk']['stem']['kernel'], stack[1], rtol=1e-6)
    whole = np.sqrt((grad[1] ** 2).sum())
    np.testing.assert_allclose(clipped['lm']['w'], grad[1] * min(1, 10 / whole), rtol=1e-5)


@pytest.mark.parametrize(
    'vision',
    [
        NFNetConfig(depths=(1, 2, 1, 2), widths=(32, 16, 16, 16), group_width=8, final_width=16, resolution=32),
        ViTConfig(width=8, depth=2, heads=2, ffw_width=8, patch=8, resolution=16),
        BEiTConfig(width=8, depth=2, heads=2, ffw_width=8, patch=8, resolution=16),
        EfficientNetConfig(stages=((1, 3, 1, 1, 8), (1, 3, 2, 2, 8)), stem_width=8, head_width=24, resolution=16),
    ],
    ids=lambda vision: vision.family,
)
def test_stacks_of_blocks_are_known_by_their_names(vision):
    model = Flamingo(FlamingoConfig(vision=vision, image_size=vision.resolution))
    boxed = jax.eval_shape(model.init, jax.random.key(0))['vision']
    boxes = jax.tree_util.tree_leaves_with_path(boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))
    for path, box in boxes:
        named = any(is_stacked(part.key) for part in path)
        assert named == (box.names[:1] == ('layers',)), path
