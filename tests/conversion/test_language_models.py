"""Language models of every family, built by transformers with random weights of realistic size, and converted."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flamingo_jax
from flamingo_jax import convert
from flamingo_jax.inference import decode, search
from tests.golden.make_language_models import FAMILIES, random_model, write_tokenizer

pytestmark = pytest.mark.usefixtures('quick_compilation')
TOLERANCE = 1e-4  # Of the largest logit.


@pytest.fixture(scope='module', params=sorted(FAMILIES))
def both(request, tmp_path_factory):
    """(transformers' model, ours) of one family."""
    pytest.importorskip('transformers')
    folder = tmp_path_factory.mktemp(request.param)
    theirs = random_model(request.param)
    theirs.save_pretrained(folder / 'source')
    write_tokenizer(folder / 'source', theirs.config.get_text_config().vocab_size)
    convert.lm(str(folder / 'source'), str(folder / 'bundle'))
    assert {path.name for path in folder.iterdir()} == {'source', 'bundle'}
    return theirs, flamingo_jax.load(folder / 'bundle')


@pytest.fixture(scope='module')
def texts():
    """Tokens [3 24] and which are valid when padded on the left."""
    tokens = np.random.default_rng(0).integers(3, 90, (3, 24), np.int32)
    return tokens, np.arange(24) >= np.array([[0], [5], [13]])


def their_logits(model, tokens, valid):
    import torch

    arguments = dict(input_ids=torch.tensor(tokens, dtype=torch.long), attention_mask=torch.tensor(valid.astype(int)))
    if 'position_ids' in inspect.signature(model.forward).parameters:
        arguments['position_ids'] = torch.tensor(np.maximum(valid.cumsum(1) - 1, 0))
    with torch.no_grad():
        return model(**arguments, use_cache=False).logits.numpy()


def assert_close(ours, theirs):
    assert 1 < np.abs(theirs).max() < 200, 'These weights are not of a realistic size.'
    assert np.abs(np.asarray(ours) - theirs).max() <= TOLERANCE * np.abs(theirs).max()


@pytest.mark.parity
def test_logits(both, texts):
    theirs, ours = both
    tokens, _ = texts
    assert_close(ours.logits(None, tokens), their_logits(theirs, tokens, np.ones(tokens.shape, bool)))


@pytest.mark.parity
def test_padding_on_the_right(both, texts):
    theirs, ours = both
    tokens, valid = texts[0], texts[1][:, ::-1]
    assert_close(ours.logits(None, tokens)[valid], their_logits(theirs, tokens, valid)[valid])


@pytest.mark.parity
def test_padding_on_the_left_and_the_cache(both, texts):
    """The prompt is 16 places; the tokens after it are read in two parts."""
    theirs, ours = both
    tokens, valid = texts
    expected = their_logits(theirs, tokens, valid)
    prefill, extend = jax.jit(decode.prefill, static_argnums=(0, 5)), jax.jit(decode.extend, static_argnums=0)
    model = (ours.model, ours.params, None)
    last, text = prefill(*model, tokens[:, :16], valid[:, :16], 8)
    first, text = extend(*model, text, tokens[:, 16:20])
    second, _ = extend(*model, text, tokens[:, 20:])
    assert_close(np.concatenate([last[:, None], first, second], axis=1), expected[:, 15:])


@pytest.mark.parity
def test_greedy_continuations(both, texts):
    import torch

    theirs, ours = both
    tokens, valid = texts
    theirs.generation_config.eos_token_id = None
    expected = theirs.generate(
        torch.tensor(tokens, dtype=torch.long),
        attention_mask=torch.tensor(valid.astype(int)),
        do_sample=False,
        max_new_tokens=16,
        pad_token_id=0,
    )[:, 24:].numpy()
    model = (ours.model, ours.params, None)
    logits, text = jax.jit(decode.prefill, static_argnums=(0, 5))(*model, tokens, valid, 16)
    got = search.sample(*model, text, logits, jnp.array([-1]), jax.random.key(0), 16, search.Sampling(), ())
    np.testing.assert_array_equal(got, expected)
    assert len(np.unique(expected)) > 5, 'A model that repeats itself proves little.'
