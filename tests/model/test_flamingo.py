"""The invariants that make the model a Flamingo."""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.conversion import mllama
from flamingo_jax.inference import decode
from flamingo_jax.model.attention import Segments
from flamingo_jax.model.bridges.bridge import media_mask
from flamingo_jax.model.bridges.gated_xattn import GatedXattnDense
from flamingo_jax.model.config import SIZES, ContrastiveConfig, FlamingoConfig, LoraConfig
from flamingo_jax.model.flamingo import Flamingo, Media, Placement
from flamingo_jax.model.language_model import Block
from flamingo_jax.model.states import states
from flamingo_jax.model.vision.beit import BEiTConfig
from flamingo_jax.model.vision.nfnet import NFNetConfig
from flamingo_jax.model.vision.vit import ViTConfig
from flamingo_jax.parallel.rules import RULES
from tests.operations import operations

pytestmark = pytest.mark.usefixtures('quick_compilation')
logits = jax.jit(Flamingo.logits, static_argnums=0)


@pytest.fixture
def logits_as_run(full_optimisation):
    """For bit-for-bit equality: `logits`, compiled as users compile it."""
    return jax.jit(lambda *args: Flamingo.logits(*args), static_argnums=0, compiler_options=full_optimisation)


def with_alphas(params, value):
    xattn = {name: jnp.full_like(p, value) if name.startswith('alpha_') else p for name, p in params['xattn'].items()}
    return params | {'xattn': xattn}


def test_closed_gates_give_the_bare_language_model_bit_for_bit(logits_as_run, model, params, features, tokens):
    bare = Flamingo(FlamingoConfig(lm=model.config.lm))
    plain = np.minimum(tokens, 303)
    closed = logits_as_run(model, with_alphas(params, 0.0), features, plain)
    np.testing.assert_array_equal(closed[..., :304], logits_as_run(bare, {'lm': params['lm']}, None, plain))
    assert closed.shape == (2, 16, 305) and closed.dtype == np.float32
    opened = logits(model, params, features, plain)
    assert np.abs(opened - closed).max() > 1e-2


def test_no_gradient_from_an_image_to_the_text_before_it(model, params, features, tokens):
    """Row 0 has tags at 2 and 9: logits 0 and 1 come before both, logits 2 to 8 before the second."""

    @jax.jit
    def jacobian(features):  # [l n]: how much each logit row of text 0 depends on each of its images.
        one = jnp.array(tokens[:1])
        pull = jax.vjp(lambda f: model.logits(params, f, one)[0].sum(axis=-1), features)[1]
        return jnp.abs(jax.vmap(lambda row: pull(row)[0])(jnp.eye(16))).sum(axis=(1, 3, 4, 5))

    depends = np.asarray(jacobian(features[:1]))
    assert (depends[:2] == 0).all() and (depends[:9, 1] == 0).all()
    assert (depends[2:, 0] > 0).all() and (depends[9:, 1] > 0).all()  # The first reaches the end by self-attention.


def test_an_image_matters_only_where_phi_names_it(model, params, features, tokens):
    """With the language model's self-attention silent there is no other way."""
    blocks = params['lm']['blocks']
    silent = blocks | {'out': jax.tree.map(jnp.zeros_like, blocks['out'])}
    silent = params | {'lm': params['lm'] | {'blocks': silent}}
    phi = np.asarray(model.phi(jnp.array(tokens)))
    before = logits(model, silent, features, tokens)
    for image in (1, 2):
        changed = features.copy()
        changed[:, image - 1] *= -1
        difference = np.abs(logits(model, silent, changed, tokens) - before).max(axis=-1)
        assert (difference[phi == image] > 1e-4).all() and (difference[phi != image] == 0).all()


def test_without_latents_the_features_are_the_media_tokens(model, params, tokens):
    """The MLP of the ablation: 16 tokens an image, and text still sees its own image alone, no gate being there."""
    c = model.config
    c = dataclasses.replace(
        c,
        resampler=c.resampler.as_kind('mlp'),
        xattn=dataclasses.replace(c.xattn, every=3, gates=False),
    )
    mlp = Flamingo(c)
    new = nn.meta.unbox(jax.jit(mlp.init)(jax.random.key(0)))
    assert c.media_tokens == 16 and 'alpha_xattn' not in new['xattn']
    features = np.random.default_rng(0).standard_normal((2, 2, 1, 16, 24), np.float32)
    changed = features.copy()
    changed[:, 1, :, 15] *= -1  # The last feature of the second image.
    difference = np.abs(logits(mlp, new, changed, tokens) - logits(mlp, new, features, tokens)).max(axis=-1)
    phi = np.asarray(mlp.phi(jnp.array(tokens)))
    assert (difference[phi == 2] > 1e-5).all() and (difference[phi < 2] == 0).all()


def test_padding_images_change_nothing(model, params, features, tokens):
    padded = np.concatenate([features, 3 * features[:, ::-1]], axis=1)
    expected = logits(model, params, features, tokens)
    np.testing.assert_allclose(logits(model, params, padded, tokens), expected, rtol=1e-5, atol=1e-5)


def test_a_text_without_images_does_not_depend_on_its_batch(model, params, features, tokens):
    """Alone it has no images at all; beside a text that has some, its row has padding."""
    text = np.where(tokens == 8, 10, tokens)  # No tag is whole.
    assert not np.any(model.phi(jnp.array(text)))
    alone, beside = logits(model, params, None, text), logits(model, params, features, text)
    np.testing.assert_allclose(alone, beside, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('first', [0, 1])
def test_states_are_those_after_each_block(model, params, features, tokens, first):
    """The last gives the logits, the others those of the model without the blocks after them. Groups are ragged."""
    xattn = dataclasses.replace(model.config.xattn, first=first)
    blocks, gated = params['lm']['blocks'], jax.tree.map(lambda x: x[: 2 - first], params['xattn'])
    model, tokens, features = (
        Flamingo(dataclasses.replace(model.config, xattn=xattn)),
        jnp.array(tokens),
        jnp.array(features),
    )
    of_blocks = states(model, params | {'xattn': gated}, features, tokens)
    assert of_blocks.shape == (3, 2, 16, 32)
    for depth in range(first + 1, 4):
        lm = dataclasses.replace(model.config.lm, depth=depth)
        cut = Flamingo(dataclasses.replace(model.config, lm=lm))
        lm_cut = params['lm'] | {'blocks': jax.tree.map(lambda x, depth=depth: x[:depth], blocks)}
        some = jax.tree.map(lambda x, n=cut.config.xattn_blocks: x[:n], gated)
        expected = cut.logits(params | {'lm': lm_cut, 'xattn': some}, features, tokens)
        np.testing.assert_allclose(model.unembed(params, of_blocks[depth - 1]), expected, rtol=1e-4, atol=1e-4)


def test_phi_counts_the_tag_that_has_begun(config):
    """Figure 6 of the paper, where '<image>' is three pieces of plain text and phi is 8 + 11 + 10 long."""
    bos, eoc, t = 2, 304, (7, 8, 9)
    text = [bos, *range(20, 26), eoc, *t, *range(30, 37), eoc, *t, *range(40, 46), eoc]
    figure = [0] * 8 + [1] * 11 + [2] * 10
    phi = Flamingo(config).phi
    np.testing.assert_array_equal(phi(jnp.array([text])), [figure])
    broken = [bos, 7, 8, 20, 8, 9, 7, 7, 8, 9, 7, 8]  # Only one whole tag.
    np.testing.assert_array_equal(phi(jnp.array([broken])), [[0] * 7 + [1] * 5])
    one = Flamingo(dataclasses.replace(config, image_tag=(305,))).phi
    np.testing.assert_array_equal(one(jnp.array([[305, 5, 305, 305, 5]])), [[1, 1, 2, 3, 3]])
    none = Flamingo(dataclasses.replace(config, image_tag=())).phi
    np.testing.assert_array_equal(none(jnp.array([text])), [[0] * 29])


def test_phi_may_count_at_the_tags_own_tokens_alone(config):
    """The same text; what the data says of phi counts there too, as where text is tied to the next image."""
    config = dataclasses.replace(config, xattn=config.xattn.as_kind('selective_xattn', only_at_tag=True))
    bos, eoc, t = 2, 304, (7, 8, 9)
    text = jnp.array([[bos, *range(20, 26), eoc, *t, *range(30, 37), eoc, *t, *range(40, 46), eoc]])
    expected = np.array([[0] * 8 + [1] * 3 + [0] * 8 + [2] * 3 + [0] * 7])
    phi = Flamingo(config).phi
    np.testing.assert_array_equal(phi(text), expected)
    np.testing.assert_array_equal(phi(text, jnp.full_like(text, 2)), 2 * (expected > 0))
    broken = [bos, 7, 8, 20, 8, 9, 7, 7, 8, 9, 7, 8]
    np.testing.assert_array_equal(phi(jnp.array([broken])), [[0] * 7 + [1] * 3 + [0] * 2])
    np.testing.assert_array_equal(phi(jnp.array([[7, 8]])), [[0, 0]])  # Shorter than a tag.
    one = Flamingo(dataclasses.replace(config, image_tag=(305,))).phi
    np.testing.assert_array_equal(one(jnp.array([[305, 5, 305, 305, 5]])), [[1, 0, 2, 3, 0]])


@pytest.fixture(scope='module')
def at_tag(model) -> Flamingo:
    """With both choices that leave a language model's own text as it is."""
    xattn = model.config.xattn.as_kind('selective_xattn', only_at_tag=True, ffw_where_seen=True)
    return dataclasses.replace(model, config=dataclasses.replace(model.config, xattn=xattn))


def test_text_without_images_passes_unchanged_bit_for_bit(logits_as_run, model, at_tag, params, features, tokens):
    """The gates are open; alone, and beside a row that has images. The paper's block changes it."""
    bare, without = Flamingo(FlamingoConfig(lm=model.config.lm)), np.minimum(tokens, 303)
    without[1] = np.where(without[1] == 8, 10, without[1])  # No tag of this row is whole.
    expected = logits_as_run(bare, {'lm': params['lm']}, None, without)
    alone = logits_as_run(at_tag, params, None, without)
    np.testing.assert_array_equal(alone[..., :304], expected)
    beside = logits_as_run(at_tag, params, features, without)
    np.testing.assert_array_equal(beside[1, :, :304], expected[1])
    np.testing.assert_array_equal(beside[0, :2, :304], expected[0, :2])  # Before its first tag.
    assert (np.abs(beside[0, 2:, :304] - expected[0, 2:]).max(axis=-1) > 1e-4).all()  # Its text sees the tag.
    assert np.abs(logits(model, params, features, without)[1, :, :304] - expected[1]).max() > 1e-2


def test_an_image_may_be_seen_at_its_tag_alone(at_tag, params, features, tokens):
    """With the language model's self-attention silent nothing after the tag depends on it."""
    blocks = params['lm']['blocks']
    silent = blocks | {'out': jax.tree.map(jnp.zeros_like, blocks['out'])}
    silent = params | {'lm': params['lm'] | {'blocks': silent}}
    changed = logits(at_tag, silent, -features, tokens) != logits(at_tag, silent, features, tokens)
    at = [[2, 3, 4, 9, 10, 11], [3, 4, 5]]
    for row in range(2):
        np.testing.assert_array_equal(np.flatnonzero(changed[row].any(axis=-1)), at[row])
    nowhere = np.zeros_like(tokens)
    nowhere[0, 6:9] = 1  # The data's phi does not open the text after a tag.
    seen = [states(at_tag, params, jnp.array(f), jnp.array(tokens), jnp.array(nowhere)) for f in (features, -features)]
    np.testing.assert_array_equal(*seen)


def test_logits_can_be_had_of_some_places_only(model, params, features, tokens):
    """As a loss does that takes the targets first: the product with the vocabulary is of these rows alone."""
    places = jnp.array([[3, 9, 15], [0, 1, 14]])

    def some(params, features, tokens):
        y = model.hidden(params, features, tokens)
        return model.unembed(params, jnp.take_along_axis(y, places[..., None], axis=1))

    expected = np.take_along_axis(np.asarray(logits(model, params, features, tokens)), places[..., None], axis=1)
    np.testing.assert_allclose(jax.jit(some)(params, features, tokens), expected, rtol=1e-5, atol=1e-5)
    saved = operations(lambda *args: model.logits(*args), params, features, tokens) - operations(
        some, params, features, tokens
    )
    assert saved == 2 * 2 * (16 - 3) * 32 * 305


@pytest.mark.parametrize('remat', ['', 'full'])
def test_nothing_below_the_first_gated_block_is_differentiated(model, params, tokens, remat):
    """Four blocks, of which two stand below. Input rows of extra tokens that are trained stand below all of them."""

    def backward(first, *names):
        lm = dataclasses.replace(model.config.lm, depth=4)
        xattn = dataclasses.replace(model.config.xattn, every=2, first=first)
        one = Flamingo(dataclasses.replace(model.config, lm=lm, xattn=xattn), remat=remat)
        new = nn.meta.unbox(jax.eval_shape(one.init, jax.random.key(0)))
        trained = {name: new[name] for name in ('resampler', 'xattn', *names)}
        frozen = {name: tree for name, tree in new.items() if name not in trained}
        loss = loss_of(one, jnp.zeros((2, 2, 1, 4, 24)), jnp.array(tokens))
        return operations(jax.grad(loss), trained, frozen) - operations(loss, trained, frozen)

    block = 2 * 32 * 16 * 2 * (2 * 32 + 2 * 16 + 2 * 64)  # Products of a block with its weights, forward.
    attention = 2 * 2 * 2 * 16 * 16 * 32
    two_blocks = 2 * (block + 2 * attention)  # At least: with remat they would be computed again too.
    assert backward(0) - backward(2) >= two_blocks
    assert backward(2, 'extra_tokens') - backward(2) >= two_blocks


@pytest.fixture
def no_sums_in_bfloat16():
    """JAX raises where one would be."""
    jax.config.update('jax_allow_f16_reductions', False)
    yield
    jax.config.update('jax_allow_f16_reductions', True)


SMALL = dict(width=24, depth=2, heads=2, ffw_width=32, patch=4, resolution=16)
TRUNKS = [
    ViTConfig(**SMALL, patch_bias=True),
    BEiTConfig(**SMALL, absolute=True),
    NFNetConfig(depths=(1, 2), widths=(64, 128), group_width=32, final_width=32, resolution=16),
]


@pytest.mark.parametrize('trunk', TRUNKS, ids=lambda trunk: trunk.family)
def test_no_gradient_is_summed_in_bfloat16(no_sums_in_bfloat16, config, trunk, tokens):
    """A gate is a scalar: its gradient is a sum over every text, of which rounding would leave a part."""
    lm = dataclasses.replace(config.lm, bias=True, positions='relative')
    xattn = dataclasses.replace(config.xattn, vector_alphas=trunk.family == 'vit')
    model = Flamingo(dataclasses.replace(config, vision=trunk, lm=lm, xattn=xattn), jnp.bfloat16)

    def loss(params, pixels):
        return model.logits(params, model.features(params, pixels), jnp.array(tokens)).sum()

    params = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0)))
    jax.eval_shape(jax.grad(loss), params, jax.ShapeDtypeStruct((2, 2, 1, 16, 16, 3), np.float32))


@pytest.mark.parametrize('tied', [True, False])
def test_products_of_a_step_in_bfloat16_are_of_bfloat16(config, tied, tokens):
    """Backwards too: but for attention, whose logits are float32."""
    lm = dataclasses.replace(config.lm, tied=tied)
    lora = LoraConfig(rank=3, targets=('query', 'key', 'value', 'out', 'up', 'down'))
    model = Flamingo(FlamingoConfig(lm=lm, lora=lora, extra_tokens=('<EOC>',)), jnp.bfloat16)
    params = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0)))
    lowered = jax.jit(jax.grad(lambda p: model.logits(p, None, jnp.array(tokens)).sum())).lower(params).as_text()
    of_weights = [line for line in lowered.splitlines() if 'dot_general' in line and 'batching_dims' not in line]
    operands = [re.search(r': \((.*)\) ->', line)[1] for line in of_weights]
    assert len(operands) > 40 and not [types for types in operands if 'xf32' in types]


@pytest.fixture
def loop(model, params):
    """The head of flamingo.py, written as a loop over the blocks."""
    c = model.config
    gated = GatedXattnDense(c.xattn, c.lm, c.media_width)
    run_block = jax.jit(Block(c.lm).apply)

    @jax.jit
    def run_gated(p, y, media, mask):
        return gated.apply(p, y, gated.apply(p, media, method='keys_values'), mask)

    def run(features, tokens):
        tokens = jnp.array(tokens)
        media = jax.jit(model.media)(params, features).tokens
        mask = media_mask(model.phi(tokens), 2, c.resampler.latents)
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        y = model.embed(params, tokens)
        for i in range(c.lm.depth):
            if i % c.xattn.every == 0:
                p = {'params': jax.tree.map(lambda x, i=i: x[i // c.xattn.every], params['xattn'])}
                y = run_gated(p, y, media, mask)
            p = {'params': jax.tree.map(lambda x, i=i: x[i], params['lm']['blocks'])}
            y, _ = run_block(p, y, Placement(positions, Segments(causal=True), model.phi(tokens)))
        return jax.jit(model.unembed)(params, y)

    return run


@pytest.mark.parametrize('remat', ['', 'full'])
def test_scanned_groups_are_a_loop_over_blocks(logits_as_run, model, params, features, tokens, loop, remat):
    """Three blocks with a gated block before the first and the third: one whole group and a ragged one."""
    scanned = dataclasses.replace(model, remat=remat)
    np.testing.assert_array_equal(logits_as_run(scanned, params, features, tokens), loop(features, tokens))


@pytest.mark.parametrize('policy', ['full', 'dots'])
def test_rematerialisation_changes_nothing(model, params, features, tokens, policy):
    remat = dataclasses.replace(model, remat=policy)
    expected = logits(model, params, features, tokens)
    np.testing.assert_allclose(logits(remat, params, features, tokens), expected, rtol=1e-5, atol=1e-5)
    grad = jax.jit(
        jax.grad(
            lambda xattn, m: jnp.sum(m.logits(params | {'xattn': xattn}, jnp.array(features), jnp.array(tokens)) ** 2)
        ),
        static_argnums=1,
    )
    for a, b in zip(*(jax.tree.leaves(grad(params['xattn'], m)) for m in (model, remat)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(a).max())


def test_an_unknown_remat_policy_is_named(config):
    with pytest.raises(ValueError, match="'', 'full' or 'dots', not 'everything'"):
        Flamingo(config, remat='everything')


def test_media_computed_ahead_are_the_same(model, params, features, tokens):
    """What decoding does: keys and values of the media once a prompt."""

    @jax.jit
    def ahead(features, tokens):
        media = decode.keys_values(model, params, model.media(params, features))
        assert isinstance(media, Media) and media.tokens is None and media.length == 6
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        y = model.embed(params, tokens)
        y, cache = model.decoder(params, y, Placement(positions, Segments(causal=True), model.phi(tokens)), media)
        assert cache is None
        return model.unembed(params, y)

    np.testing.assert_allclose(ahead(features, tokens), logits(model, params, features, tokens), rtol=1e-5, atol=1e-5)


def test_pixels_are_their_features(model, params, tokens):
    pixels = np.random.default_rng(2).integers(0, 256, (2, 2, 1, 16, 16, 3), np.uint8)
    features = jax.jit(lambda p, x: model.features(p, x))(params, pixels)
    assert features.shape[:3] == (2, 2, 1) and features.shape[4] == 24
    np.testing.assert_allclose(
        logits(model, params, pixels, tokens), logits(model, params, features, tokens), rtol=1e-4, atol=1e-4
    )


def test_a_trained_trunk_has_a_gradient_and_its_statistics_have_none(model, params):
    pixels = np.random.default_rng(2).integers(0, 256, (2, 2, 1, 16, 16, 3), np.uint8)
    weights = np.random.default_rng(3).standard_normal((2, 2, 1, 16, 24), np.float32)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(model.features(p, jnp.array(pixels)) * weights)))(params)
    assert not any(np.any(g) for name in params if name != 'vision' for g in jax.tree.leaves(grads[name]))
    for path, g in jax.tree_util.tree_leaves_with_path(grads['vision']):
        assert np.any(g) != (path[-1].key in ('mean', 'var', 'std')), jax.tree_util.keystr(path)


def loss_of(model, images, tokens):
    return lambda trained, frozen: jnp.sum(model.logits(frozen | trained, images, tokens) ** 2)


@pytest.mark.parametrize('remat', ['', 'full'])
def test_a_frozen_trunk_has_no_backward_pass(model, params, tokens, remat):
    """Pixels cost as much more than features as the trunk's forward pass."""
    model, tokens = dataclasses.replace(model, remat=remat), jnp.array(tokens)
    pixels, features = jnp.zeros((2, 2, 1, 16, 16, 3), jnp.uint8), jnp.zeros((2, 2, 1, 16, 24))

    def cost(images, *names):
        trained = {name: params[name] for name in ('resampler', 'xattn', *names)}
        frozen = {name: tree for name, tree in params.items() if name not in trained}
        return operations(jax.grad(loss_of(model, images, tokens)), trained, frozen)

    forward = operations(model.features, params, pixels)
    assert forward > 0 and cost(pixels) == cost(features) + forward
    assert cost(pixels, 'vision') > cost(pixels) + forward


def test_extra_tokens_have_rows_of_their_own(model, params, features, tokens):
    expected = logits(model, params, features, tokens)
    extra = params['extra_tokens']
    out = logits(model, params | {'extra_tokens': extra | {'output': -extra['output']}}, features, tokens)
    np.testing.assert_array_equal(out[..., :304], expected[..., :304])
    np.testing.assert_allclose(out[..., 304], -expected[..., 304], rtol=1e-6)
    new = logits(model, params | {'extra_tokens': extra | {'input': -extra['input']}}, features, tokens)
    np.testing.assert_array_equal(new[0, 0], expected[0, 0])  # The first <EOC> of text 0 is token 1.
    assert np.abs(new[0, 1] - expected[0, 1]).max() > 1e-3
    last = params['lm']['embedder'] | {'tokens': params['lm']['embedder']['tokens'].at[303].add(1.0)}
    y = model.embed(params | {'lm': params['lm'] | {'embedder': last}}, jnp.full((1, 1), 304))
    np.testing.assert_array_equal(y[0, 0], extra['input'][0])


def test_every_dimension_of_every_parameter_has_a_rule_and_every_rule_a_parameter(config):
    learned = dict(positions='learned', norm='layer', bias=True, gated_ffw=True, tied=False)
    sizes = [FlamingoConfig(**size) for size in SIZES.values()]
    lm = dataclasses.replace(config.lm, **learned)
    towers = dict(vision=config.vision, image_size=config.image_size, contrastive=ContrastiveConfig())
    llama = mllama.config_of(mllama.PUBLISHED['11b'])
    configs = [config, FlamingoConfig(lm=lm, lora=LoraConfig()), FlamingoConfig(lm=lm, **towers), llama, *sizes]
    used = set()
    for one in configs:
        boxed = jax.eval_shape(Flamingo(one).init, jax.random.key(0))
        leaves = jax.tree_util.tree_leaves_with_path(boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))
        for path, box in leaves:
            assert isinstance(box, nn.meta.AxisMetadata), f'{path} has no logical axes'
            assert len(box.names) == box.value.ndim, f'{path} {box.names} {box.value.shape}'
            used |= set(box.names)
    used |= {'batch', 'images', 'groups'}  # Of activations, and of a quantised matrix's scale.
    rules = [name for name, _ in RULES]
    assert len(rules) == len(set(rules)) and used == set(rules)


def test_the_trees_are_the_components(config):
    lm, vision = FlamingoConfig(lm=config.lm), FlamingoConfig(vision=config.vision, image_size=16)
    trees = {
        name: jax.eval_shape(Flamingo(one).init, jax.random.key(0))
        for name, one in (('whole', config), ('lm', lm), ('vision', vision))
    }
    assert set(trees['whole']) == {'vision', 'lm', 'resampler', 'xattn', 'extra_tokens'}
    for part in ('lm', 'vision'):
        assert set(trees[part]) == {part}
        assert jax.tree.map(lambda x: (x.shape, x.dtype), trees[part][part]) == jax.tree.map(
            lambda x: (x.shape, x.dtype), trees['whole'][part]
        )
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(trees))


def test_norms_of_the_language_model_are_those_of_the_blocks_behind(config):
    config = dataclasses.replace(config, xattn=config.xattn.as_kind('selective_xattn', first=1, norms_of_lm=True))
    params = nn.meta.unbox(jax.jit(Flamingo(config).init)(jax.random.key(0)))
    blocks = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(1), x.shape), params['lm']['blocks'])
    found = config.xattn.begin(params['xattn'], blocks)['norm_text']
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[1::2]), found, blocks['norm_attention'])
