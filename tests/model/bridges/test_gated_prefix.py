"""A visual prefix, which goes through the whole model as the paper's bridge does."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.inputs.tokenizer import extra_tokens_of_prefix
from flamingo_jax.model.bridges.gated_prefix import GatedPrefixConfig
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo

pytestmark = pytest.mark.usefixtures('quick_compilation')
logits = jax.jit(Flamingo.logits, static_argnums=0)


@pytest.fixture(scope='module')
def prefixed(config) -> Flamingo:
    """The tiny model with a prefix of its three latents."""
    return Flamingo(dataclasses.replace(config, xattn=config.xattn.as_kind('gated_prefix')))


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
        return bare.unembed(params, bare.decoder(params, y, bare.place(tokens), None)[0])

    return jax.jit(read)(params, y)


def test_the_tokens_of_a_tag_are_the_media_tokens_of_its_image(prefixed, prefix_params, features, tokens):
    """The bare language model, given the embeddings by hand, says the same."""
    features, tokens = jnp.asarray(features[:1]), jnp.asarray(tokens[:1])
    found = logits(prefixed, prefix_params, features, tokens)
    np.testing.assert_allclose(found, by_hand(prefixed, prefix_params, features, tokens), rtol=1e-4, atol=1e-4)
    before = logits(prefixed, prefix_params, None, tokens)
    np.testing.assert_array_equal(found[0, :2], before[0, :2])
    assert (np.abs(found - before)[0, 2:].max(axis=-1) > 1e-3).all()


def test_a_packed_document_has_the_prefix_of_its_own_images(prefixed, prefix_params, features, tokens):
    """Two documents in one row, the second of which begins with the row's second image."""
    features, tokens = jnp.asarray(features), jnp.asarray(tokens)
    document = jnp.array([[1] * 8 + [2] * 8])
    phi = jnp.array([[0, 0] + [1] * 7 + [2] * 7])
    hidden = jax.jit(prefixed.hidden)
    packed = hidden(prefix_params, features[:1], tokens[:1], phi=phi, document=document)
    alone = hidden(prefix_params, features[:1, 1:], tokens[:1, 8:])
    np.testing.assert_allclose(packed[:, 8:], alone, rtol=1e-4, atol=1e-4)


def test_a_group_longer_than_the_model_keeps_no_blocks_that_are_not_there(prefixed, prefix_params, features, tokens):
    """A prefix says that it comes once in 2 ** 30 blocks. It takes the memory of one that comes once in the model's."""
    features, tokens = jnp.asarray(features), jnp.asarray(tokens)

    class Exact(GatedPrefixConfig):
        every = prefixed.config.lm.depth

    exact = Exact(**dataclasses.asdict(prefixed.config.xattn))
    exact = Flamingo(dataclasses.replace(prefixed.config, xattn=exact))

    def gradient(model):
        def loss(params):
            return model.hidden(params, features, tokens).sum()

        program = jax.jit(jax.grad(loss)).lower(prefix_params).compile()
        return program(prefix_params)['resampler'], program.memory_analysis().temp_size_in_bytes

    (expected, memory), (found, needed) = gradient(exact), gradient(prefixed)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert needed == memory


def test_beams_share_the_soft_words(prefixed):
    module = prefixed.config.xattn.module(prefixed.config.lm, 8)
    rng = np.random.default_rng(0)
    media, y = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in ((2, 3, 8), (6, 4, 8)))
    mask = jnp.zeros((6, 4, 3), bool).at[:, 1:].set(True)
    variables = module.init(jax.random.key(0), y, media.repeat(3, 0), mask, method='touch')
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
        (dict(image_tag=(7,)), 'needs a tag of 3 tokens, one for each media token, but image_tag has 1'),
        (dict(resampler=None), 'of the width of the language model'),
    ],
)
def test_what_a_prefix_needs_is_said(prefixed, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(prefixed.config, **changes)


def test_a_tag_has_a_token_for_each_media_token():
    assert extra_tokens_of_prefix(3) == ('<EOC>', '<image>', '<image 2>', '<image 3>')


def test_a_text_may_be_shorter_than_a_tag(prefixed):
    np.testing.assert_array_equal(prefixed.phi(jnp.array([[7, 8]])), [[0, 0]])
