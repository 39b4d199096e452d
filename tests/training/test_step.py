"""The training step on every kind of mesh."""

import dataclasses
import functools

import flax.linen as nn
import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from flamingo_jax.inputs.pipeline import put
from flamingo_jax.inputs.rows import Interleaved
from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.model import states as blocks
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import rules
from flamingo_jax.training.objectives import aligned, next_token
from flamingo_jax.training.objectives.aligned import Aligned
from flamingo_jax.training.objectives.noise import NoiseConfig
from flamingo_jax.training.objectives.objective import LOSSES
from flamingo_jax.training.optimizer import OptimizerConfig, make_optimizer
from flamingo_jax.training.state import new_state
from flamingo_jax.training.step import make_step, working_copies
from flamingo_jax.training.validation import Validation
from tests.tiny_run import break_gradients

pytestmark = pytest.mark.usefixtures('quick_compilation')
TRAINED = ('resampler', 'xattn', 'extra_tokens')
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_steps=1)
STEPS = 3


@pytest.fixture(scope='module')
def model(config) -> Flamingo:
    """Everything that is cut has at least eight of it; two blocks, of which a gated one is before the first alone."""
    lm = dataclasses.replace(config.lm, depth=2, heads=8, kv_heads=8, head_dim=4)
    resampler = dataclasses.replace(config.resampler, depth=1, heads=8, head_dim=4)
    xattn = dataclasses.replace(config.xattn, heads=8, head_dim=4)
    return Flamingo(dataclasses.replace(config, lm=lm, resampler=resampler, xattn=xattn))


@pytest.fixture(scope='module')
def data(model):
    """One batch of 16 rows a step."""

    def batch(step):
        rng = np.random.default_rng(step)
        tokens = rng.integers(10, 304, (16, 12), np.int32)
        tokens[:, 1:4] = tokens[:, 6:9] = 7, 8, 9
        weights = rng.choice(np.float32([0, 0.5, 1]), (16, 12))
        return Interleaved(
            tokens=tokens,
            phi=np.asarray(model.phi(jnp.array(tokens))),
            weights=weights,
            used=rng.integers(6, 13, 16, np.int32),
            features=rng.standard_normal((16, 2, 1, 4, 24), np.float32),
            unreadable=rng.integers(0, 2, 16, np.int32),
        )

    return [batch(step) for step in range(STEPS)]


def mesh_of(shape):
    return jax.make_mesh(shape, meshes.AXES, devices=jax.devices()[: np.prod(shape)], axis_types=(AxisType.Auto,) * 3)


def where(state):
    return jax.tree.map(lambda x: x.sharding, state)


def run(model, others, data, shape, micro_batches=1):
    """Three steps: (first state, last state, frozen trees, metrics, what was compiled after the first step)."""
    mesh = mesh_of(shape)
    optimizer = make_optimizer(OPTIMIZER, STEPS)
    state = new_state(model, optimizer, TRAINED, 0, mesh)
    first = jax.tree.map(np.asarray, state._replace(key=0))
    boxed = jax.eval_shape(model.init, jax.random.key(0))
    frozen = {name: jax.device_put(others[name], rules.shardings(boxed[name], mesh)) for name in ('vision', 'lm')}
    step = make_step(model, optimizer, {'web': 1.0}, {'web': micro_batches}, NoiseConfig(), where(state))
    rows, metrics, compiled = meshes.batch_sharding(mesh), [], []

    def listen(event, seconds, **_):
        compiled.append(event)

    for number, batch in enumerate(data):
        if number == 1:
            jax.monitoring.register_event_duration_secs_listener(listen)
        state, new = step(state, frozen, {'web': put(batch, rows, len(batch.tokens))})
        metrics.append({name: float(value) for name, value in new.items()})
    jax.monitoring.unregister_event_duration_listener(listen)
    return first, state, frozen, metrics, [event for event in compiled if 'backend_compile' in event]


@pytest.fixture(scope='module')
def others(model):
    """All trees, drawn with another seed; the frozen ones of a run are from here."""
    return jax.tree.map(np.asarray, nn.meta.unbox(jax.jit(model.init)(jax.random.key(7))))


@pytest.fixture(scope='module')
def one_device(model, others, data):
    return run(model, others, data, (1, 1, 1))


def losses(result):
    return [metrics['loss'] for metrics in result[3]]


def test_it_learns_only_what_is_trained(one_device, others):
    first, state, frozen, metrics, _ = one_device
    assert set(state.params) == set(TRAINED) and set(frozen) == {'lm', 'vision'}
    jax.tree.map(np.testing.assert_array_equal, frozen, {name: others[name] for name in frozen})
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), first.params, state.params)
    assert all(jax.tree.leaves(moved)), moved
    assert int(state.step) == STEPS and len({m['loss'] for m in metrics}) == STEPS
    gates = np.abs(np.tanh(np.asarray(state.params['xattn']['alpha_xattn']))).mean()
    assert metrics[-1]['gates/alpha_xattn'] == pytest.approx(gates, rel=1e-6)


def test_frozen_trees_have_no_moments(one_device):
    _, state, *_ = one_device
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim or leaf.size > 1)
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.params) if leaf.ndim)
    assert moments == 2 * trained
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)]
    assert not any('lm' in path or 'vision' in path for path in paths)


@pytest.mark.parametrize('shape', [pytest.param((8, 1, 1), marks=pytest.mark.long), (2, 2, 2)])
def test_losses_are_those_of_one_device(one_device, model, others, data, shape):
    result = run(model, others, data, shape)
    np.testing.assert_allclose(losses(result), losses(one_device), rtol=1e-5)
    for a, b in zip(jax.tree.leaves(result[1].params), jax.tree.leaves(one_device[1].params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * OPTIMIZER.learning_rate * STEPS)
    assert not result[4] and not one_device[4]  # Compiled once: the state comes back laid out as it went in.
    kernel = result[1].params['xattn']['ffw']['up']['kernel']  # [x d f]
    assert kernel.addressable_shards[0].data.shape == (1, 32 // shape[1], 128 // shape[2])
    for leaf in jax.tree.leaves(
        result[1].opt_state
    ):  # Moments lie as their parameters do, and are cut over the copies too.
        if leaf.shape == kernel.shape:
            assert leaf.addressable_shards[0].data.size == leaf.size // np.prod(shape)


@pytest.mark.long
def test_micro_batches_are_the_whole_batch(one_device, model, others, data):
    result = run(model, others, data, (2, 1, 1), micro_batches=4)
    np.testing.assert_allclose(losses(result), losses(one_device), rtol=1e-5)
    for name, value in one_device[3][-1].items():
        assert result[3][-1][name] == pytest.approx(value, rel=1e-4), name


def test_data_sets_are_weighted(one_device, model, others, data):
    """loss = sum of lambda_m loss_m, and so is its gradient: with half the rows each it is that of the whole."""
    optimizer = make_optimizer(OPTIMIZER, STEPS)
    mesh = mesh_of((1, 1, 1))
    frozen = {'lm': jax.tree.map(jnp.array, others['lm'])}
    halves = {'pairs': jax.tree.map(lambda x: x[:8], data[0]), 'web': jax.tree.map(lambda x: x[8:], data[0])}
    total = {name: half.weights[:, 1:].sum() for name, half in halves.items()}
    share = {name: float(total[name] / sum(total.values())) for name in total}

    state = new_state(model, optimizer, TRAINED, 0, mesh)
    _, metrics = make_step(model, optimizer, share, dict.fromkeys(share, 1), NoiseConfig(), where(state))(
        state, frozen, halves
    )
    expected = sum(share[name] * metrics[f'{name}/loss'] for name in share)
    assert float(metrics['loss']) == pytest.approx(float(expected), rel=1e-6)

    whole = one_device[3][0]  # The first step of that run, on the same rows.
    assert float(metrics['loss']) == pytest.approx(whole['loss'], rel=1e-5)
    assert float(metrics['grad_norm']) == pytest.approx(whole['grad_norm'], rel=1e-4)
    for name, half in halves.items():
        assert metrics[f'{name}/unreadable'] == half.unreadable.sum()
        assert metrics[f'{name}/tokens'] == half.used.sum()


def test_a_step_whose_gradient_is_not_finite_changes_nothing(one_device, model, others, data, monkeypatch):
    """Neither parameters nor moments nor the schedule's count; the step's number goes on. The loss itself is finite."""
    monkeypatch.setitem(LOSSES, Interleaved, LOSSES[Interleaved])  # Is put back after the test.
    break_gradients(0, [1, 2])
    first, state, _, metrics, _ = run(model, others, data[:2], (1, 1, 1))
    assert all(np.isfinite(m['loss']) and np.isnan(m['grad_norm']) and m['skipped'] for m in metrics)
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.opt_state), (first.params, first.opt_state))
    assert state.step == 2 and metrics[0]['loss'] == one_device[3][0]['loss']
    assert not any(m['skipped'] for m in one_device[3])


def test_a_step_in_which_nothing_has_a_weight_changes_nothing(model, others, data):
    """As one of whose batch all images are damaged: momentum and decay alone would move the parameters."""
    nothing = data[1]._replace(weights=np.zeros_like(data[1].weights))
    _, state, _, metrics, _ = run(model, others, [data[0], nothing, nothing], (1, 1, 1))
    _, expected, *_ = run(model, others, [data[0], nothing], (1, 1, 1))
    assert [m['skipped'] for m in metrics] == [0, 1, 1] and np.isnan([m['loss'] for m in metrics]).tolist()[1:] == [
        1,
        1,
    ]
    assert int(state.step) == 3
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.opt_state), (expected.params, expected.opt_state))


def test_a_data_set_that_has_nothing_to_learn_leaves_the_others_alone(model, others, data):
    mesh, optimizer = mesh_of((1, 1, 1)), make_optimizer(OPTIMIZER, STEPS)
    rows, last = meshes.batch_sharding(mesh), []
    nothing = data[1]._replace(weights=np.zeros_like(data[1].weights))
    for batches in ({'web': data[0], 'pairs': nothing}, {'web': data[0]}):
        state = new_state(model, optimizer, TRAINED, 0, mesh)
        names = dict.fromkeys(batches, 1)
        step = make_step(model, optimizer, dict.fromkeys(batches, 1.0), names, NoiseConfig(), where(state))
        frozen = {name: jax.device_put(others[name]) for name in ('vision', 'lm')}
        state, metrics = step(state, frozen, {name: put(batch, rows, 16) for name, batch in batches.items()})
        last.append([float(metrics[name]) for name in ('loss', 'grad_norm', 'skipped')])
    assert last[0] == pytest.approx(last[1], rel=1e-5) and last[0][2] == 0


def test_loss_by_hand(model, others, data):
    """sum of weight * -log p(next token), each target seen from the token before it."""
    params = others
    batch = jax.tree.map(jnp.array, data[0])
    loss, sums = jax.jit(lambda batch: next_token.loss_sum(model, params, {}, batch, jax.random.key(0), NoiseConfig()))(
        batch
    )
    logits = np.asarray(jax.jit(model.logits)(params, batch.features, batch.tokens), np.float64)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nll = -np.take_along_axis(logp[:, :-1], data[0].tokens[:, 1:, None], axis=-1)[..., 0]
    assert float(loss) == pytest.approx(float((nll * data[0].weights[:, 1:]).sum()), rel=1e-5)
    right = (logits[:, :-1].argmax(-1) == data[0].tokens[:, 1:]) & (data[0].weights[:, 1:] == 1)
    assert float(sums['tokens']) == data[0].used.sum()
    assert float(sums['right']) == right.sum() and float(sums['answers']) == (data[0].weights[:, 1:] == 1).sum()


def test_validation_is_the_mean_over_all_its_batches(model, others, data, capsys):
    mesh = mesh_of((2, 2, 1))
    state = new_state(model, make_optimizer(OPTIMIZER, 1), TRAINED, 0, mesh)
    source = grain.MapDataset.source(data)
    validate = Validation(model, dict(web=source), dict(web=Source(batch_size=16, micro_batches=2)), 2, where(state))
    ended = []
    metrics = validate(state.params, {name: others[name] for name in ('lm', 'vision')}, lambda: ended.append(1) or True)
    assert len(ended) == 2
    params = others | jax.tree.map(np.asarray, state.params)
    of = jax.jit(lambda batch: next_token.loss_sum(model, params, {}, batch, jax.random.key(0), NoiseConfig()))
    sums = [of(jax.tree.map(jnp.array, batch))[1] for batch in data[:2]]
    weights = sum(batch.total_weight() for batch in data[:2])
    assert metrics['validation/web/loss'] == pytest.approx(float(sum(s['loss'] for s in sums) / weights), rel=1e-5)
    right, answers = (float(sum(s[name] for s in sums)) for name in ('right', 'answers'))
    assert metrics['validation/web/accuracy'] == pytest.approx(right / answers)
    assert metrics['validation/web/unreadable'] == sum(batch.unreadable.sum() for batch in data[:2]) == 16
    assert "16 damaged images of the validation of 'web' are left out" in capsys.readouterr().out
    assert validate and not Validation(model, {}, {}, 2, where(state))


@pytest.fixture(scope='module')
def pairs():
    """One batch of 16 images, each with a text of one to four tokens after its <BOS>, some of them the same."""

    def batch(step):
        rng = np.random.default_rng(step)
        ends = rng.integers(1, 5, 16, np.int32)
        text = np.where(np.arange(6) <= ends[:, None], rng.integers(10, 300, (16, 6)), 0).astype(np.int32)
        text[:, 0], text[0, 1] = 2, 0  # Padding's token may be a real one.
        text[9], ends[9] = text[8], ends[8]
        return Aligned(
            tokens=np.tile(np.int32([2, 7, 8, 9, 304]), (16, 1)),
            phi=np.tile(np.int32([0, 1, 1, 1, 1]), (16, 1)),
            weight=(rng.random(16) < 0.8).astype(np.float32),
            features=rng.standard_normal((16, 1, 1, 4, 24), np.float32),
            unreadable=np.zeros(16, np.int32),
            text=text,
            used=ends + 1,
        )

    return [batch(step) for step in range(STEPS)]


def test_alignment_by_hand(model, others, pairs):
    """Each image's state at the end of its tag, and its text's as the language model alone has it, block by block."""
    loss, sums = jax.jit(lambda b: aligned.loss_sum(model, others, {}, b, jax.random.key(0), NoiseConfig()))(pairs[0])
    bare = Flamingo(FlamingoConfig(lm=model.config.lm))
    see, reading = (jax.jit(functools.partial(blocks.states, one)) for one in (model, bare))
    lm = others['lm']

    def normed(block, x):
        """What the next block's attention reads, or the output."""
        if block == model.config.lm.depth - 1:
            norm = lm['embedder']['norm_out']
        else:
            norm = jax.tree.map(lambda scales: scales[block + 1], lm['blocks']['norm_attention'])
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * norm['scale']
        return x + norm['bias']

    expected, last = 0.0, []
    columns = (jnp.array(getattr(pairs[0], name)) for name in ('tokens', 'features', 'text', 'used'))
    for row, (tokens, features, text, used) in enumerate(zip(*columns, strict=True)):
        shown = see(others, features[None], tokens[None, :4])[:, 0, 3]
        read = reading({'lm': others['lm']}, None, text[None, :used])[:, 0, used - 1]  # Nothing stands after it.
        shown, read = ([normed(i, x) for i, x in enumerate(states)] for states in (shown, read))
        last.append((shown[-1], read[-1]))
        distance = np.mean([float(((s - r) ** 2).sum() / (r**2).sum()) for s, r in zip(shown, read, strict=True)])
        expected += distance * pairs[0].weight[row]
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    shown, read = (np.stack(states) for states in zip(*last, strict=True))
    nearest = ((shown[:, None] - read) ** 2).sum(-1).argmin(1)
    assert float(sums['tokens']) == sum(pairs[0].used)
    own = (nearest == np.arange(16)) | ((nearest == 8) & (np.arange(16) == 9))
    assert float(sums['right']) == (own * pairs[0].weight).sum()


def test_a_text_is_read_once_and_always_to_the_same_states(model, others, pairs):
    """Whatever texts came before it, so that a resumed run sees the same; and the loss is that of texts read anew."""
    texts, frozen = aligned.TextStates(model, others), {'lm': others['lm']}
    read = [texts(batch).read for batch in pairs[:2]]
    calls = texts._read._cache_size(), len(texts._known)
    np.testing.assert_array_equal(texts(pairs[0]).read, read[0])
    assert calls == (1, len(texts._known))
    again = aligned.TextStates(model, others)
    np.testing.assert_array_equal(again(pairs[1]).read, read[1])
    np.testing.assert_array_equal(read[0][8], read[0][9])
    summed = jax.jit(lambda b: aligned.loss_sum(model, others, {}, b, jax.random.key(0), NoiseConfig())[1])
    for known, anew in zip(*(jax.tree.leaves(summed(b)) for b in (texts(pairs[0]), pairs[0])), strict=True):
        assert float(known) == pytest.approx(float(anew), rel=1e-5)
    trained = aligned.TextStates(model, {name: tree for name, tree in frozen.items() if name != 'lm'})
    assert trained(pairs[0]) is pairs[0]


def test_a_blend_is_to_mean_a_blend(model, others, pairs):
    """It changes the loss, but not where both are the same, nor beside an image that cannot be read."""

    @functools.partial(jax.jit, static_argnums=1)
    def summed(batch, blend):
        return aligned.loss_sum(model, others, {}, batch, jax.random.key(0), NoiseConfig(blend=blend))[0]

    def loss(batch, blend):
        return float(summed(batch, blend))

    batch = pairs[0]
    assert loss(batch, 0.5) != pytest.approx(loss(batch, 0.0), rel=1e-3)
    same = jax.tree.map(lambda x: np.repeat(x[:1], 16, axis=0), batch)._replace(weight=np.ones(16, np.float32))
    assert loss(same, 0.5) == pytest.approx(loss(same, 0.0), rel=1e-5)
    alone = batch._replace(weight=(np.arange(16) % 2).astype(np.float32))
    assert loss(alone, 0.5) == pytest.approx(loss(alone, 0.0), rel=1e-5)


def test_images_learn_to_mean_their_texts(model, others, pairs):
    """Frozen trees do not change, devices and micro-batches give the same result, and images are told apart."""
    alone = run(model, others, pairs[:1] * 40, (1, 1, 1))
    result = run(model, others, pairs[:1] * STEPS, (2, 2, 2), micro_batches=2)
    np.testing.assert_allclose(losses(result), losses(alone)[:STEPS], rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, result[2], {name: others[name] for name in result[2]})
    learned = alone[3]
    assert learned[-1]['loss'] < 0.5 * learned[0]['loss'] and learned[-1]['web/accuracy'] > 0.9


@pytest.fixture(scope='module')
def seen(model, data):
    """The same rows with pixels, four times."""
    rng = np.random.default_rng(0)
    web = data[0]._replace(features=None, images=rng.integers(0, 256, (16, 2, 1, 16, 16, 3), np.uint8))
    return [dict(web=web)] * 4


@pytest.mark.long
def test_a_trunk_is_trained_end_to_end(model, others, seen):
    """Its convolutions learn; what was measured of it stays, and does not decay."""
    trained, mesh = ('vision', *TRAINED), mesh_of((2, 1, 1))
    optimizer = make_optimizer(dataclasses.replace(OPTIMIZER, weight_decay=1.0), STEPS)
    state = new_state(model, optimizer, trained, 0, mesh)
    noisy = jax.tree.map(lambda x: x + 0.1, state.params['vision'])  # So that a mean of 0 could decay.
    state = state._replace(params=state.params | dict(vision=noisy))
    first = jax.tree.map(np.asarray, state.params['vision'])
    boxed = jax.eval_shape(model.init, jax.random.key(0))
    frozen = dict(lm=jax.device_put(others['lm'], rules.shardings(boxed['lm'], mesh)))
    step = make_step(model, optimizer, {'web': 1.0}, {'web': 1}, NoiseConfig(), where(state))
    recorded, rows = [], meshes.batch_sharding(mesh)
    for batches in seen:
        state, metrics = step(state, frozen, {name: put(batch, rows, 16) for name, batch in batches.items()})
        recorded.append(float(metrics['loss']))
    assert recorded[-1] < recorded[1]
    moved = jax.tree_util.tree_map_with_path(
        lambda path, a, b: (path[-1].key, bool(np.any(a != b))), first, jax.tree.map(np.asarray, state.params['vision'])
    )
    for name, yes in jax.tree.leaves(moved, is_leaf=lambda x: isinstance(x, tuple)):
        assert yes == (name not in ('mean', 'var', 'std')), name


@pytest.mark.long
def test_each_data_set_is_cut_into_its_own_micro_batches(model, others, seen, monkeypatch):
    """Images of both are encoded in one loop of as many parts as the most; the step is that of whole batches."""
    web = seen[0]['web']
    batches = dict(pages=jax.tree.map(lambda x: x[:8], web), videos=jax.tree.map(lambda x: x[8:], web))
    optimizer, mesh, weights = make_optimizer(OPTIMIZER, STEPS), mesh_of((1, 1, 1)), dict(pages=1.0, videos=0.3)
    frozen = {name: jax.tree.map(jnp.array, others[name]) for name in ('lm', 'vision')}
    parts = []

    def features(self, params, images, real=Flamingo.features):
        parts.append(images.shape[1])
        return real(self, params, images)

    monkeypatch.setattr(Flamingo, 'features', features)
    states, metrics = [], []
    for numbers in (dict(pages=1, videos=1), dict(pages=4, videos=2)):
        state = new_state(model, optimizer, TRAINED, 0, mesh)
        step = make_step(model, optimizer, weights, numbers, NoiseConfig(), where(state))
        state, of_step = step(state, frozen, batches)
        states.append(state.params)
        metrics.append(of_step)
    assert parts == [32, 8]  # Traced once each: one program for the images of both.
    for name in metrics[0]:
        assert float(metrics[1][name]) == pytest.approx(float(metrics[0][name]), rel=1e-4), name
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * OPTIMIZER.learning_rate)


def test_products_read_one_copy_of_the_trained_weights_in_the_computations_dtype(model, others, data):
    """In bfloat16, a step casts each stack of kernels once, outside of its loops; and it learns as before."""
    half = dataclasses.replace(model, dtype=jnp.bfloat16)
    params = {name: others[name] for name in TRAINED}
    copies = working_copies(half, params)
    dtypes = jax.tree_util.tree_map_with_path(lambda path, x: (path[-1].key == 'kernel', x.dtype), copies)
    for is_kernel, dtype in jax.tree.leaves(dtypes, is_leaf=lambda x: isinstance(x, tuple)):
        assert dtype == (jnp.bfloat16 if is_kernel else jnp.float32)
    frozen = {'lm': jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), others['lm'])}
    batch, key = jax.tree.map(jnp.array, data[0]), jax.random.key(0)

    @jax.jit
    def gradient(trained):
        return jax.grad(lambda x: next_token.loss_sum(half, x, frozen, batch, key, NoiseConfig())[0])(trained)

    of_copies, of_params = gradient(copies), gradient(params)
    for a, b in zip(jax.tree.leaves(of_copies), jax.tree.leaves(of_params), strict=True):
        np.testing.assert_array_equal(np.asarray(a, np.float32), b)  # The same numbers, rounded alike.


def test_an_unknown_component_is_named(model):
    with pytest.raises(ValueError, match="config.trained has \\['resmapler'\\]"):
        new_state(model, make_optimizer(OPTIMIZER, 1), ('resmapler',), 0, mesh_of((1, 1, 1)))
