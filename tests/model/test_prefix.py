"""A visual prefix, BLIP-2's resampler, and that both go through the whole model as the paper's bridge does."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.inputs.tokenizer import extra_tokens_of_prefix
from flamingo_jax.model.config import FlamingoConfig, ResamplerConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.init import touch
from flamingo_jax.model.prefix import Prefix
from flamingo_jax.model.resampler import Resampler

pytestmark = pytest.mark.usefixtures('quick_compilation')
logits = jax.jit(Flamingo.logits, static_argnums=0)


@pytest.fixture(scope='module')
def prefixed(config) -> Flamingo:
    """The tiny model with a prefix of its three latents."""
    xattn = dataclasses.replace(config.xattn, prefix=True, only_at_tag=True, ffw_where_seen=True, every=3)
    return Flamingo(dataclasses.replace(config, xattn=xattn))


@pytest.fixture(scope='module')
def prefix_params(prefixed, params):
    """Those of the tiny model; the prefix has its own."""
    return params | {'xattn': nn.meta.unbox(jax.jit(prefixed.init)(jax.random.key(3)))['xattn']}


def by_hand(model, params, features, tokens):
    """The logits of the bare language model, given the media tokens as embeddings of the two tags, of length 1."""
    media = jax.jit(model.media)(params, features).tokens  # [1 (2 3) 32].
    words = np.asarray(media / np.sqrt(np.square(media).mean(-1, keepdims=True) + 1e-5)) * np.tanh(0.5)
    y = np.array(model.embed(params, tokens))
    for image, place in enumerate((2, 9)):
        y[0, place : place + 3] = words[0, 3 * image : 3 * image + 3]
    bare = Flamingo(FlamingoConfig(lm=model.config.lm, extra_tokens=model.config.extra_tokens))

    def read(params, y):
        return bare.unembed(params, bare._decode(params, None, tokens, phi=None, y=y))

    return jax.jit(read)(params, y)


def test_the_tokens_of_a_tag_are_the_media_tokens_of_its_picture(prefixed, prefix_params, features, tokens):
    """The bare language model, given the embeddings by hand, says the same."""
    features, tokens = jnp.asarray(features[:1]), jnp.asarray(tokens[:1])
    found = logits(prefixed, prefix_params, features, tokens)
    np.testing.assert_allclose(found, by_hand(prefixed, prefix_params, features, tokens), rtol=1e-4, atol=1e-4)
    before = logits(prefixed, prefix_params, None, tokens)
    np.testing.assert_array_equal(found[0, :2], before[0, :2])
    assert (np.abs(found - before)[0, 2:].max(axis=-1) > 1e-3).all()


def test_a_packed_document_has_the_prefix_of_its_own_pictures(prefixed, prefix_params, features, tokens):
    """Two documents in one row, the second of which begins with the row's second picture."""
    features, tokens = jnp.asarray(features), jnp.asarray(tokens)
    document = jnp.array([[1] * 8 + [2] * 8])
    phi = jnp.array([[0, 0] + [1] * 7 + [2] * 7])
    hidden = jax.jit(prefixed.hidden)
    packed = hidden(prefix_params, features[:1], tokens[:1], phi=phi, document=document)
    alone = hidden(prefix_params, features[:1, 1:], tokens[:1, 8:])
    np.testing.assert_allclose(packed[:, 8:], alone, rtol=1e-4, atol=1e-4)


def test_a_group_longer_than_the_model_keeps_no_blocks_that_are_not_there(prefixed, prefix_params, features, tokens):
    """Its gradient is that of a group as long as the model, and takes as much memory."""
    features, tokens = jnp.asarray(features), jnp.asarray(tokens)
    xattn = dataclasses.replace(prefixed.config.xattn, every=1000)
    longer = Flamingo(dataclasses.replace(prefixed.config, xattn=xattn))

    def gradient(model):
        def loss(params):
            return model.hidden(params, features, tokens).sum()

        program = jax.jit(jax.grad(loss)).lower(prefix_params).compile()
        return program(prefix_params)['resampler'], program.memory_analysis().temp_size_in_bytes

    (expected, memory), (found, needed) = gradient(prefixed), gradient(longer)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert needed == memory


def test_beams_share_the_soft_words(prefixed):
    module = Prefix(prefixed.config.xattn)
    rng = np.random.default_rng(0)
    media, y = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in ((2, 3, 8), (6, 4, 8)))
    mask = jnp.zeros((6, 4, 3), bool).at[:, 1:].set(True)
    variables = module.init(jax.random.key(0), y, media.repeat(3, 0), mask, method=touch)
    shared = module.apply(variables, y, module.apply(variables, media, method='keys_values'), mask)
    repeated = module.apply(variables, y, module.apply(variables, media.repeat(3, 0), method='keys_values'), mask)
    np.testing.assert_array_equal(shared, repeated)
    np.testing.assert_array_equal(shared[:, 0], y[:, 0])


def test_the_gradient_reaches_the_resampler(prefixed, prefix_params, features, tokens):
    features, tokens = jnp.asarray(features), jnp.asarray(tokens)

    def loss(trained):
        return prefixed.hidden(prefix_params | trained, features, tokens)[:, 2:].var()

    trained = {name: prefix_params[name] for name in ('resampler', 'xattn')}
    gradient = jax.jit(jax.grad(loss))(trained)
    assert all(np.abs(leaf).max() > 0 for name, leaf in jax.tree.leaves_with_path(gradient) if 'time' not in str(name))


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(every=2), 'every at least the depth of the language model, 3'),
        (dict(only_at_tag=False), 'needs only_at_tag'),
        (dict(image_tag=(7,)), 'needs a tag of 3 tokens, one for each media token, but image_tag has 1'),
        (dict(resampler=None), 'of the width of the language model'),
    ],
)
def test_what_a_prefix_needs_is_said(prefixed, changes, message):
    xattn = {name: value for name, value in changes.items() if name in ('every', 'only_at_tag')}
    rest = {name: value for name, value in changes.items() if name not in xattn}
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(prefixed.config, xattn=dataclasses.replace(prefixed.config.xattn, **xattn), **rest)


def test_a_tag_has_a_token_for_each_media_token():
    assert extra_tokens_of_prefix(3) == ('<EOC>', '<image>', '<image 2>', '<image 3>')


def test_latents_of_a_q_former_attend_to_one_another_and_then_to_the_features():
    c = ResamplerConfig(latents=3, width=16, depth=1, heads=2, head_dim=8, frames=0, kind='qformer')
    features = jnp.asarray(np.random.default_rng(0).standard_normal((1, 1, 1, 5, 6), np.float32))
    p = nn.meta.unbox(Resampler(c, 12).init(jax.random.key(0), features))['params']
    media = Resampler(c, 12).apply({'params': p}, features)

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    def attended(x, of, p):
        out = 0
        for h in range(2):
            q, k, v = (a @ np.asarray(p[n]['kernel'])[:, h] for n, a in (('query', x), ('key', of), ('value', of)))
            weights = np.exp(q @ k.T / 8**0.5)
            out += weights / weights.sum(-1, keepdims=True) @ v @ np.asarray(p['out']['kernel'])[h]
        return out

    layer = jax.tree.map(lambda x: np.asarray(x[0]), p['layers'])
    x, of = np.asarray(p['latents']), norm(features[0, 0, 0] @ p['project_in']['kernel'])
    x = x + attended(norm(x), norm(x), layer['self_attention'])
    x = x + attended(norm(x), of, layer['cross_attention'])
    hidden = np.maximum(norm(x) @ layer['ffw']['up']['kernel'], 0) ** 2
    x = x + hidden @ layer['ffw']['down']['kernel']
    np.testing.assert_allclose(media[0, 0], norm(x) @ p['project_out']['kernel'], rtol=1e-4, atol=1e-4)


def test_a_text_may_be_shorter_than_a_tag(prefixed):
    np.testing.assert_array_equal(prefixed.phi(jnp.array([[7, 8]])), [[0, 0]])
