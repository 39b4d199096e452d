"""What `look` reports is what the model computed."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.inference.inspection import look
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.prompts import encode_prompt
from flamingo_jax.model import attention
from flamingo_jax.model.bridges import gated_xattn
from flamingo_jax.model.connectors import perceiver
from flamingo_jax.model.flamingo import Flamingo

pytestmark = pytest.mark.usefixtures('quick_compilation')
ANSWER = [45, 301, 77]


@pytest.fixture
def used(monkeypatch):
    """Every call of `attend` in the gated blocks and in the resampler that computes: q, k, v and the result.

    What is compiled is not seen, so the model that is watched runs with `jax.disable_jit`.
    """
    calls = {gated_xattn: [], perceiver: []}

    def watched(where, q, k, v, mask=None, **how):
        out = attention.attend(q, k, v, mask, **how)
        if not isinstance(out, jax.core.Tracer):
            calls[where].append(tuple(map(np.asarray, (q, k, v, out))))
        return out

    of_parts = lambda q, kv, mask, **how: watched(gated_xattn, q, *kv[0], mask, **how)  # noqa: E731
    monkeypatch.setattr(gated_xattn, 'attend_to_parts', of_parts)
    monkeypatch.setattr(perceiver, 'attend', functools.partial(watched, perceiver))
    return calls


def with_one_head(pretrained):
    """The same model with one head in the blocks that `look` averages over, so that an average is exact."""
    c = pretrained.config
    c = dataclasses.replace(
        c, xattn=dataclasses.replace(c.xattn, heads=1), resampler=dataclasses.replace(c.resampler, heads=1)
    )

    def first_head(path, x):
        name = jax.tree_util.keystr(path)
        attends = any(f"['{part}']" in name for part in ('query', 'key', 'value', 'out'))
        if not attends or not ('xattn' in name or 'resampler' in name) or 'project' in name:
            return x
        axis = -3 if "['out']" in name else -2
        return jnp.take(x, jnp.array([0]), axis=axis)

    params = jax.tree_util.tree_map_with_path(first_head, pretrained.params)
    return Pretrained(Flamingo(c), params, pretrained.tokenizer, pretrained.image_tag, None, {})


def test_weights_times_values_are_what_the_model_used(pretrained, stills, used):
    one = with_one_head(pretrained)
    prompt = [stills[0], ' dax<EOC>', stills[1], ' Output:']
    seen = look(one, prompt, ANSWER)
    # The uncached model on the same tokens, watched.
    ids, frames = encode_prompt(prompt, one.tokenizer, one.image_format)
    images, tokens = jnp.stack(frames)[None], jnp.array([ids + ANSWER])
    with jax.disable_jit():
        logits = Flamingo(one.config).logits(one.params, images, tokens)
    at = np.arange(len(ids) - 1, len(ids) + len(ANSWER))
    assert len(used[gated_xattn]) == len(seen.weights) == 2
    for weights, (_, _, v, out) in zip(seen.weights, used[gated_xattn], strict=True):
        flat = weights.reshape(len(at), -1)
        np.testing.assert_allclose(flat @ v[0, 0], out[0, at, 0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(flat.sum(axis=1), 1, rtol=1e-5)
        assert (weights[:, 0] == 0).all()  # Only the last image is seen.
        np.testing.assert_allclose(seen.over(1).sum(axis=(2, 3, 4)), 1, rtol=1e-4)
    p = np.asarray(jax.nn.softmax(logits[0, at]))
    for row, likeliest in zip(p, seen.likeliest, strict=True):
        np.testing.assert_allclose([value for _, value in likeliest], np.sort(row)[::-1][:5], rtol=1e-3)
    assert seen.tokens == [one.tokenizer.decode([token]) for token in ANSWER]


def test_media_tokens_are_followed_back_through_the_resampler(pretrained, stills, used):
    one = with_one_head(pretrained)
    video = [stills[0], stills[1]]
    seen = look(one, [video, ' Output:'], ANSWER[:1])
    features = one.features(encode_prompt([video], one.tokenizer, one.image_format)[1][0])
    with jax.disable_jit():
        Flamingo(one.config).media(one.params, jnp.asarray(features)[None, None])
    assert len(used[perceiver]) == 2
    drawn = np.zeros((3, 32))  # Of 3 latents on 2 frames of 16 places.
    for q, k, v, out in used[perceiver]:
        weights = np.exp(q[0, :, 0] @ k[0, 0].T / np.sqrt(q.shape[-1]))
        weights /= weights.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(weights @ v[0, 0], out[0, :, 0], rtol=1e-3, atol=1e-5)
        drawn = (drawn + weights[:, :32] + weights[:, 32:] @ drawn) / 2
    np.testing.assert_allclose(seen.places[0].reshape(3, 32), drawn / drawn.sum(axis=1, keepdims=True), rtol=1e-3)


@pytest.mark.parametrize('kind', ['qformer', 'pooling'])
def test_media_tokens_are_followed_back_through_other_resamplers(pretrained, stills, used, kind):
    c = pretrained.config
    c = dataclasses.replace(c, resampler=dataclasses.replace(c.resampler, heads=1).as_kind(kind))
    params = nn.meta.unbox(jax.jit(Flamingo(c).init)(jax.random.key(3)))
    one = dataclasses.replace(pretrained, model=Flamingo(c), params=params)
    seen = look(one, [stills[0], ' Output:'], ANSWER[:1])
    features = one.features(encode_prompt([stills[0]], one.tokenizer, one.image_format)[1][0])
    with jax.disable_jit():
        Flamingo(c).media(params, jnp.asarray(features)[None, None])
    weights = [
        np.asarray(jax.nn.softmax(q[0, :, 0] @ k[0, 0].T / np.sqrt(q.shape[-1]))) for q, k, *_ in used[perceiver]
    ]
    drawn = np.zeros((3, 16))  # Of 3 latents on 16 places.
    if kind == 'pooling':
        (drawn,) = weights
    else:
        for of_latents, of_features in zip(weights[::2], weights[1::2], strict=True):
            drawn = (drawn + of_latents @ drawn) / 2
            drawn = (drawn + of_features) / 2
    np.testing.assert_allclose(seen.places[0].reshape(3, 16), drawn / drawn.sum(axis=1, keepdims=True), rtol=1e-3)


def test_the_bytes_of_a_letter_are_looked_at_together(pretrained, stills):
    prompt, answer = [stills[0], ' Output:'], pretrained.tokenizer.encode('a猫b') + [stray := 255]
    seen = look(pretrained, prompt, answer, likeliest=400)
    assert seen.tokens == ['a', '猫', 'b', '\ufffd'] and pretrained.tokenizer.shown(stray) == '<0xF9>'
    # The position after an answer so far is that of its next token, and stands alone.
    alone = np.stack([look(pretrained, prompt, answer[:i]).weights[:, -1] for i in range(len(answer) + 1)], axis=1)
    expected = np.stack([alone[:, i:j].mean(axis=1) for i, j in ((0, 1), (1, 4), (4, 5), (5, 6), (6, 7))], axis=1)
    np.testing.assert_allclose(seen.weights, expected, rtol=1e-3, atol=1e-6)
    names = [{name for name, _ in row} for row in seen.likeliest]
    assert len(names) == 5 and all('<0xF9>' in row and '\ufffd' not in row for row in names)


def test_gates_and_a_prompt_without_images(pretrained):
    seen = look(pretrained, ['only text Output:'], ANSWER)
    np.testing.assert_allclose(seen.gates, np.tanh([[0.5, 0.0]] * 2), rtol=1e-6)
    assert seen.weights.shape == (2, 4, 0, 0) and seen.places == []
    with pytest.raises(ValueError, match='exceed the context of 128'):
        look(pretrained, ['only text Output:'], ANSWER * 50)
