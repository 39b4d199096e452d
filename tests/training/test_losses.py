"""Noise on the text, as a language model's pretraining asks for it; and each loss by hand."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.inputs.rows import Chunk, Interleaved, RowFormat
from flamingo_jax.inputs.tokenizer import MissingTokenizer, Tokenizer
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.training.objectives import next_token
from flamingo_jax.training.objectives.noise import NoiseConfig, text_noise
from flamingo_jax.training.objectives.noise import features as noisy_features
from flamingo_jax.training.objectives.told import Told
from flamingo_jax.training.objectives.told import loss_sum as told_loss

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.mark.parametrize('text, vocabulary', [(0.0, 1.0), (0.3, 0.0)])
def test_a_repeated_token_has_the_same_noise_only_where_it_is_of_the_vocabulary(model, text, vocabulary):
    v, d = model.config.lm.vocab_size, 256
    embeddings = jax.numpy.asarray(0.5 / d**0.5 * np.random.default_rng(0).standard_normal((v, d), np.float32))
    tokens = jax.numpy.tile(jax.numpy.array([5, 9, 5]), (200, 1))
    config = NoiseConfig(text=text, vocabulary=vocabulary)
    noise = np.asarray(text_noise(embeddings, tokens, jax.random.key(0), config, model))
    noisy = np.abs(noise).max((1, 2)) > 0
    assert noisy.mean() == pytest.approx(0.5, abs=0.1)
    noise = noise[noisy]
    assert noise.std() == pytest.approx(0.5 * (text + vocabulary), rel=0.05)  # The embedded text deviates by 0.5.
    assert np.array_equal(noise[:, 0], noise[:, 2]) == bool(vocabulary)
    assert not np.array_equal(noise[:, 0], noise[:, 1])
    assert len(np.unique(noise[:, 0, 0])) > 0.7 * len(noise)  # Each row its own, by 304 shifts.


LETTERS = {'a': 11, 'b': 12, 'c': 13, '\n': 14, 'dog': 15}


class Letters(MissingTokenizer):
    """One token a word."""

    def __init__(self):
        super().__init__(304, 'text')
        self.begin, self.eos, self.image_tag = (2,), 3, (7, 8, 9)

    def encode(self, text, continues=False, marks=True):
        return [LETTERS[word] for word in text.split(' ')]


def told_row(features, targets=0):
    chunks = [
        Chunk(lambda: features[0], ['a b'], [1.0], says='dog c'),
        Chunk(lambda: features[1], ['c', 'a'], [0.0, 0.5], says='dog'),
    ]
    blank = np.zeros_like(features[0])
    return Told.of(chunks, Letters(), blank, np.random.default_rng(0), RowFormat(16, 2, targets=targets))


def test_a_told_row_compares_what_follows_each_image(features):
    row = told_row(features[0].astype(np.float16))
    assert row.tokens.tolist()[: row.used] == [2, 7, 8, 9, 11, 12, 304, 7, 8, 9, 13, 11, 304]
    assert row.told.tolist()[:10] == [2, 15, 13, 11, 12, 14, 15, 13, 11, 14]
    compared = [(int(a), int(b), float(w)) for a, b, w in zip(row.at, row.told_at, row.weights, strict=True) if w]
    # After each tag or word: the next token of the text, or the end of the chunk, which weighs as its last text does.
    assert compared == [(3, 2, 1.0), (4, 3, 1.0), (5, 4, 1.0), (10, 7, 0.5), (11, 8, 0.5)]
    assert row.total_weight() == 4.0
    cut = told_row(features[0].astype(np.float16), targets=3)
    assert cut.at.tolist() == [3, 4, 5] and cut.weights.tolist() == [1.0] * 3


def test_marks_in_a_told_row_are_tokens_only_where_its_chunk_says_so(sentencepiece):
    tokenizer = Tokenizer(sentencepiece, 'token')
    for marks in (False, True):
        chunk = Chunk(lambda: np.zeros((1, 4, 24), np.float16), ['a<EOC>'], [1.0], says='dog', marks=marks)
        blank = np.zeros((1, 4, 24), np.float16)
        row = Told.of([chunk], tokenizer, blank, np.random.default_rng(0), RowFormat(16, 1))
        assert (row.tokens == tokenizer.eoc).sum() == 1 + marks


def test_distillation_by_hand(model, params, features):
    """KL of the two models' next tokens, one comparison at a time; the told one's new line is <EOC>."""
    row = told_row(features[0].astype(np.float16))
    batch = jax.tree.map(lambda x: jnp.asarray(x)[None], row)._replace(newline=jnp.array([14], jnp.int32))
    loss, sums = jax.jit(lambda b: told_loss(model, params, {}, b, jax.random.key(0), NoiseConfig()))(batch)
    shown = jax.nn.log_softmax(model.logits(params, batch.features.astype(jnp.float32), batch.tokens))[0]
    bare = Flamingo(FlamingoConfig(lm=model.config.lm))
    told = np.array(jax.nn.softmax(bare.logits({'lm': params['lm']}, None, batch.told))[0], np.float64)
    expected, right = 0.0, 0
    for at, told_at, weight in zip(row.at, row.told_at, row.weights, strict=True):
        if weight:
            p = np.append(told[told_at], told[told_at, 14])
            p[14] = 0.0
            q = np.asarray(shown[at], np.float64)
            expected += weight * sum(x * (np.log(x) - y) for x, y in zip(p, q, strict=True) if x > 0)
            right += p.argmax() == q.argmax()
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert float(sums['right']) == right and float(sums['answers']) == 5


def test_logits_of_the_targets_alone_give_the_same_loss(model, params, features):
    chunks = [Chunk(lambda: features[0, 0], ['a b', 'c'], [0.0, 1.0]), Chunk(lambda: features[0, 1], ['b'], [0.5])]

    def row(targets):
        rng, blank = np.random.default_rng(0), np.zeros_like(features[0, 0])
        return Interleaved.of(chunks, Letters(), blank, rng, RowFormat(20, 2, targets=targets))

    def loss(row):
        batch = jax.tree.map(lambda x: jnp.asarray(x)[None], row)
        return next_token.loss_sum(model, params, {}, batch, jax.random.key(0), NoiseConfig())[1]

    every, some = loss(row(0)), loss(row(8))
    for name, value in every.items():
        assert float(some[name]) == pytest.approx(float(value), rel=1e-6), name
    assert row(8).at.tolist() == [5, 6, 10, 11, 12, -1, -1, -1]
    # Of a row with more, the first are learned.
    fewer = row(4)
    assert fewer.at.tolist() == [5, 6, 10, 11] and np.flatnonzero(fewer.weights).tolist() == [6, 7, 11, 12]
    np.testing.assert_array_equal(fewer.weights[:13], row(0).weights[:13])


@pytest.mark.parametrize(
    'p_next, lm, xattn, lines',
    [
        (0.0, dict(positions='learned'), dict(only_last_image=False), 2),
        pytest.param(0.0, dict(positions='rotary'), {}, 1, marks=pytest.mark.long),
        pytest.param(1.0, dict(positions='relative'), dict(only_at_tag=True), 2, marks=pytest.mark.long),
        pytest.param(
            1.0, dict(positions='alibi', windows=(0, 5)), dict(ffw_where_seen=True), 1, marks=pytest.mark.long
        ),
    ],
    ids=['learned-all_images', 'rotary', 'next-relative-only_at_tag', 'next-alibi-windows-ffw_where_seen'],
)
def test_packed_documents_have_the_loss_and_gradients_that_they_have_alone(config, p_next, lm, xattn, lines):
    c = dataclasses.replace(
        config,
        lm=dataclasses.replace(config.lm, depth=2, context=128, **lm),
        xattn=config.xattn.as_kind('selective_xattn', **xattn),
    )
    model, rng = Flamingo(c), np.random.default_rng(0)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))
    params['xattn']['alpha_dense'] += 0.5
    images = rng.standard_normal((5, 1, 4, 24), np.float32)

    def chunk(number, *texts):
        return Chunk((lambda: images[number]) if number is not None else None, texts, [0.5, 1.0][-len(texts) :])

    documents = [
        [chunk(None, 'a b c'), chunk(0, 'b', 'c a'), chunk(1, 'c')],
        [chunk(None, 'a b c a b c a')],
        [chunk(2, 'b a'), chunk(3, 'dog'), chunk(4, 'b c')],
        [chunk(None, 'dog a', 'b b')],
    ]
    common = dict(tokenizer=Letters(), blank=np.zeros_like(images[0]), rng=rng)
    alone = [Interleaved.of(document, row=RowFormat(24, 3, p_next=p_next), **common) for document in documents]
    whole = RowFormat(72 // lines, 6, p_next=p_next)
    row = Interleaved.packed(documents, row=whole, window=(24, 3), lines=lines, **common)
    assert row.used == sum(one.used for one in alone) and row.document.max() == 4
    assert lines == 1 or row.document[:, 0].tolist() == [1, 3]

    def batch(*rows):
        return jax.tree.map(lambda *x: jnp.stack(x), *rows)

    @jax.jit
    def loss(params, batch):
        def summed(params):
            return next_token.loss_sum(model, params, {}, batch, jax.random.key(0), NoiseConfig())

        return jax.value_and_grad(summed, has_aux=True)(params)

    (packed, sums), gradients = loss(params, batch(row))
    (unpacked, expected), expected_gradients = loss(params, batch(*alone))
    assert float(batch(row).total_weight()) == float(batch(*alone).total_weight())
    assert float(packed) == pytest.approx(float(unpacked), rel=1e-5)
    assert {name: float(x) for name, x in sums.items()} == pytest.approx(
        {name: float(x) for name, x in expected.items()}, rel=1e-5
    )
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(np.abs(b).max(), 1e-3))
    # The comparison can fail: as one document, the row has another loss.
    (wrong, _), _ = loss(params, batch(row._replace(document=(row.document > 0).astype(np.int32))))
    assert abs(float(wrong) - float(unpacked)) > 1e-4 * float(unpacked)


def test_the_teacher_has_no_gradient(model, params, features):
    """Where the language model is trained, it learns what it says of images, and not what it says of names."""
    row = told_row(features[0].astype(np.float16))
    batch = jax.tree.map(lambda x: jnp.asarray(x)[None], row)._replace(newline=jnp.array([14], jnp.int32))
    rest = {name: tree for name, tree in params.items() if name != 'lm'}

    def distilled(lm):
        return told_loss(model, dict(lm=lm), rest, batch, jax.random.key(0), NoiseConfig())[0]

    def by_hand(lm):  # Told by the language model as it was.
        shown = model.logits(params | dict(lm=lm), batch.features.astype(jnp.float32), batch.tokens)[0]
        shown = jax.nn.log_softmax(shown)
        told = jax.nn.softmax(model.alone.logits(dict(lm=params['lm']), None, batch.told))[0]
        loss = 0.0
        for at, told_at, weight in zip(row.at, row.told_at, row.weights, strict=True):
            if weight:  # <EOC> stands for the newline.
                said = jnp.append(told[told_at].at[14].set(0), told[told_at][14])
                loss -= float(weight) * jnp.sum(said * shown[at])
        return loss

    found, expected = (jax.jit(jax.grad(loss))(params['lm']) for loss in (distilled, by_hand))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max()), found, expected)


def test_channels_of_an_image_are_dropped_everywhere_and_the_rest_made_up_for(model):
    batch = Interleaved(*[None] * 5, features=jnp.ones((6, 3, 1, 4, 64)))
    out = np.asarray(noisy_features(model, {}, batch, jax.random.key(0), NoiseConfig(feature_dropout=0.25)))
    np.testing.assert_allclose(np.unique(out), [0, 1 / 0.75], rtol=1e-6)
    assert (out == out[:, :, :1, :1]).all() and out.mean() == pytest.approx(1, abs=0.1)
    assert len({image.tobytes() for row in out for image in row}) == 18  # Each image has its own.
