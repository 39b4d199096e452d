"""Generation and scoring against the plain teacher-forced model, for which there are no caches."""

import copy
import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys
import unicodedata

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from flamingo_jax.checkpoints import bundle
from flamingo_jax.inference import decode, prefill, prompt_cache, search
from flamingo_jax.inference.inspection import look
from flamingo_jax.inference.pretrained import Pretrained, load
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inference.serving import Engine
from flamingo_jax.inputs.images import ImageError, to_frames
from flamingo_jax.inputs.prompts import common_beginning, encode, encode_prompt, is_continued
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.parallel import rules
from flamingo_jax.parallel.mesh import fill, make_mesh

pytestmark = pytest.mark.usefixtures('quick_compilation')


def forward(pretrained, prompt, continuation=()):
    """Logits [l v] of a prompt and tokens after it, by the uncached model."""
    tokens, stills = encode_prompt(prompt, pretrained.tokenizer, pretrained.image_format)
    row = [*tokens, *continuation]
    padded = np.array([row + [pretrained.tokenizer.pad] * (64 - len(row))], np.int32)  # One length: to compile once.
    images = np.stack(stills)[None] if stills else None
    return np.array(pretrained.logits(images, padded))[0, : len(row)], len(tokens)


def greedy(pretrained, prompt, steps, banned):
    """Greedy tokens, each from a whole forward pass."""
    tokens = []
    for _ in range(steps):
        logits, _ = forward(pretrained, prompt, tokens)
        logits[-1, banned] = -np.inf
        tokens.append(int(logits[-1].argmax()))
        if tokens[-1] in (pretrained.tokenizer.eos, pretrained.tokenizer.eoc):
            return tokens[:-1]
    return tokens


def prompts_of(stills):
    """Different lengths, numbers of images, text before the first image, and none at all."""
    return [
        [stills[0], ' Output: dax<EOC>', stills[1], ' Output:'],
        ['lo lo lo mi<EOC>', stills[2], ' Output:'],
        ['only text Output:'],
        [stills[3], stills[4], stills[5], ' Output: a longer one that goes on'],
    ]


def test_greedy_is_that_of_the_uncached_model(pretrained, stills):
    banned = [pretrained.tokenizer.pad, pretrained.tokenizer.bos]
    for prompt in prompts_of(stills):
        expected = pretrained.tokenizer.decode(greedy(pretrained, prompt, 6, banned)).strip()
        assert pretrained.generate(prompt, max_new_tokens=6) == expected


@pytest.mark.parametrize(
    'how', [{}, dict(num_beams=3), pytest.param(dict(num_beams=2, length_penalty=1.0), marks=pytest.mark.long)]
)
def test_a_batch_answers_as_each_prompt_alone(pretrained, stills, how):
    prompts = prompts_of(stills)
    together = pretrained.generate(prompts, max_new_tokens=5, **how)
    assert together == [pretrained.generate(prompt, max_new_tokens=5, **how) for prompt in prompts]


@pytest.mark.parametrize('how', [{}, dict(temperature=1.0, top_k=20, seed=5), dict(num_beams=3, length_penalty=1.0)])
def test_what_is_written_step_by_step_is_what_generate_gives(pretrained, stills, how):
    for prompt in prompts_of(stills)[1:3]:
        written = list(pretrained.write(prompt, Sampling(max_new_tokens=6, **how)))
        assert 1 <= len(written) <= 6
        assert written[-1].text == pretrained.generate(prompt, max_new_tokens=6, **how)
        assert pretrained.tokenizer.decode(written[-1].tokens).strip() == written[-1].text
        if 'num_beams' not in how:  # Beams may change their minds.
            for i, one in enumerate(written[:-1]):
                assert one.tokens == written[-1].tokens[: i + 1]


def test_score_is_the_likelihood_under_the_uncached_model(pretrained, stills):
    candidates = [' dax<EOC>', ' a wug', ' mi']
    prompts = prompts_of(stills)
    scores = pretrained.score(prompts, candidates)
    assert scores.shape == (4, 3)
    for prompt, row in zip(prompts, scores, strict=True):
        for candidate, score in zip(candidates, row, strict=True):
            ids = pretrained.tokenizer.encode(candidate)
            logits, length = forward(pretrained, prompt, ids)
            logp = jax.nn.log_softmax(logits)[np.arange(length - 1, length - 1 + len(ids)), ids]
            np.testing.assert_allclose(score, logp.sum(), rtol=1e-4)
        np.testing.assert_allclose(pretrained.score(prompt, candidates), row, rtol=1e-4)


def test_a_candidate_is_read_composed_as_a_prompt_is(pretrained):
    name = ' mèo'
    scores = pretrained.score('Output:', [name, unicodedata.normalize('NFD', name)])
    assert scores[0] == scores[1] and len(set(pretrained.lengths('Output:', [name, ' me\u0300o']))) == 1


def test_each_candidate_is_encoded_once(pretrained, stills):
    encoded, tokenizer = [], copy.copy(pretrained.tokenizer)
    tokenizer.encode = lambda text, *how: encoded.append(text) or pretrained.tokenizer.encode(text, *how)
    one, candidates = dataclasses.replace(pretrained, tokenizer=tokenizer), [' dax<EOC>', ' a wug', ' mi']
    for image in stills[:2]:
        one.score([image, ' Output:'], candidates)
        one.choose([[image, ' Output:']], [candidates])
    assert [encoded.count(candidate) for candidate in candidates] == [1, 1, 1]


def test_a_bare_language_model_scores_and_generates(pretrained):
    config = FlamingoConfig(lm=pretrained.config.lm)
    tokenizer = Tokenizer(pretrained.tokenizer.model)
    bare = Pretrained(Flamingo(config), {'lm': pretrained.params['lm']}, tokenizer, None, None, {})
    prompt, candidates = 'only text Output:', [' dax', ' a wug']
    row = np.array([[*tokenizer.begin, *tokenizer.encode(prompt)]], np.int32)
    logp = jax.nn.log_softmax(bare.logits(None, row)[0, -1])
    scores = bare.score([prompt], candidates)
    assert scores[0] <= logp[tokenizer.encode(' dax')[0]] + 1e-5
    assert bare.choose([[prompt]], [candidates]) == [int(scores.argmax())]
    greedy = jnp.where(jnp.isin(jnp.arange(len(logp)), jnp.array([tokenizer.pad, tokenizer.bos])), -jnp.inf, logp)
    assert bare.generate([prompt], max_new_tokens=1) == tokenizer.decode([int(greedy.argmax())]).strip()


@pytest.mark.long
def test_the_likeliest_candidate_is_found_without_scoring_all(pretrained, stills, monkeypatch):
    prompts = prompts_of(stills)
    candidates = [f' {a}{b} {c}<EOC>' for a in 'dkgmv' for b in 'aeiou' for c in ('x', 'the dog')]
    rows = [candidates[i:] for i in range(len(prompts))]
    expected = [int(pretrained.score(p, row).argmax()) for p, row in zip(prompts, rows, strict=True)]
    monkeypatch.setattr('flamingo_jax.inference.pretrained._LIKELIEST', 32)
    assert pretrained.choose(prompts, rows) == expected


def test_beam_search_finds_what_looking_at_everything_finds(pretrained, stills):
    """With as many beams as there are tokens, two steps of beam search see every continuation of two tokens."""
    prompt = [stills[0], ' Output:']
    t = pretrained.tokenizer
    v = t.vocab_size + 1
    first, length = forward(pretrained, prompt)
    first = np.array(jax.nn.log_softmax(_ban(first[-1], t)))
    best, best_tokens = -np.inf, None
    media, text, _ = pretrained.read([prompt], 2)
    model = pretrained.model
    after, _ = decode.extend(model, pretrained.params, media, decode.fork(model, text, v, 1), jnp.arange(v)[:, None])
    after = np.asarray(after)[:, 0]
    for token in range(v):
        if token in (t.eos, t.eoc):
            if first[token] > best:
                best, best_tokens = first[token], []
            continue
        second = first[token] + np.array(jax.nn.log_softmax(_ban(after[token], t)))
        if second.max() > best:
            last = int(second.argmax())
            best, best_tokens = second.max(), [token] + ([last] if last not in (t.eos, t.eoc) else [])
    assert pretrained.generate(prompt, max_new_tokens=2, num_beams=v) == t.decode(best_tokens).strip()


def _ban(logits, tokenizer):
    logits = np.array(logits)
    logits[[tokenizer.pad, tokenizer.bos]] = -1e30
    return logits


@pytest.mark.long
def test_decoding_equals_teacher_forcing_where_gated_blocks_act_at_the_tag(pretrained, stills):
    """Prefill, tokens one at a time, candidates side by side and beams; the last prompt ends with the tag."""
    params = pretrained.params | {'xattn': pretrained.params['xattn'] | {'alpha_dense': jnp.full(2, 0.5)}}
    t, candidates = pretrained.tokenizer, [' dax<EOC>', ' a wug']
    prompts, banned = [*prompts_of(stills)[:3], [stills[0]]], [t.pad, t.bos]

    def with_choices(**fields):
        xattn = pretrained.config.xattn.as_kind('selective_xattn', **fields)
        model = dataclasses.replace(pretrained.model, config=dataclasses.replace(pretrained.config, xattn=xattn))
        return dataclasses.replace(pretrained, model=model, params=params)

    scores = []
    for one in (with_choices(ffw_where_seen=True), at_tag := with_choices(ffw_where_seen=True, only_at_tag=True)):
        scores.append(_checked_scores(one, prompts, candidates))
    assert (np.abs(scores[0] - scores[1])[[0, 1, 3]] > 1e-3).all() and np.allclose(scores[0][2], scores[1][2])
    answers, beams = at_tag.generate(prompts, max_new_tokens=3), at_tag.generate(prompts, 3, num_beams=2)
    for prompt, answer, beam in zip(prompts, answers, beams, strict=True):
        assert answer == t.decode(greedy(at_tag, prompt, 3, banned)).strip()
        assert beam == beams_of_the_uncached_model(at_tag, prompt, 3, 2, banned)


@pytest.mark.long
def test_decoding_equals_teacher_forcing_with_a_prefix(pretrained, stills):
    """The same, where images are soft words in the text, one for each token of a tag."""
    c, t = pretrained.config, pretrained.tokenizer
    xattn = c.xattn.as_kind('gated_prefix')
    resampler = dataclasses.replace(c.resampler, latents=len(c.image_tag))
    model = dataclasses.replace(pretrained.model, config=dataclasses.replace(c, xattn=xattn, resampler=resampler))
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(1)))
    one = dataclasses.replace(pretrained, model=model, params=params | {'lm': pretrained.params['lm']})
    prompts, banned = [*prompts_of(stills)[:3], [stills[0]]], [t.pad, t.bos]
    scores = _checked_scores(one, prompts, [' dax<EOC>', ' a wug'])
    others = _checked_scores(one, [*prompts_of(stills[::-1])[:3], [stills[1]]], [' dax<EOC>', ' a wug'])
    assert (np.abs(scores - others)[[0, 1, 3]] > 1e-4).all()
    answers, beams = one.generate(prompts, max_new_tokens=3), one.generate(prompts, 3, num_beams=2)
    for prompt, answer, beam in zip(prompts, answers, beams, strict=True):
        assert answer == t.decode(greedy(one, prompt, 3, banned)).strip()
        assert beam == beams_of_the_uncached_model(one, prompt, 3, 2, banned)


def _checked_scores(one, prompts, candidates):
    """The scores of the candidates, which are those of the uncached model."""
    scores, t = one.score(prompts, candidates), one.tokenizer
    for prompt, row in zip(prompts, scores, strict=True):
        for candidate, score in zip(candidates, row, strict=True):
            ids = t.encode(candidate, is_continued(prompt, t))
            logits, length = forward(one, prompt, ids)
            logp = jax.nn.log_softmax(logits)[np.arange(length - 1, length - 1 + len(ids)), ids]
            np.testing.assert_allclose(score, logp.sum(), rtol=1e-4)
    return scores


def beams_of_the_uncached_model(pretrained, prompt, steps, beams, banned):
    """Beam search by summed log-probability, each step from whole forward passes."""
    t = pretrained.tokenizer
    live, finished = [(0.0, [])], []
    for _ in range(steps):
        new = []
        for score, tokens in live:
            logits, _ = forward(pretrained, prompt, tokens)
            logp = np.array(jax.nn.log_softmax(logits[-1]))
            logp[banned] = -1e30
            new += [(score + logp[i], [*tokens, int(i)]) for i in np.argsort(-logp)[: 3 * beams]]
        new.sort(key=lambda one: -one[0])
        finished += [(score, tokens[:-1]) for score, tokens in new[:beams] if tokens[-1] in (t.eos, t.eoc)]
        live = [one for one in new if one[1][-1] not in (t.eos, t.eoc)][:beams]
    return t.decode(max(finished + live, key=lambda one: one[0])[1]).strip()


@pytest.mark.long
def test_blocks_apart_say_what_their_stacks_say(pretrained, stills):
    """On a CPU tokens are decoded with views of each block's parameters, elsewhere with the stacks."""
    read = pretrained.read(prompts_of(stills), 5)
    stack = pretrained.params['lm']['blocks']['ffw']['up']['kernel']
    apart = pretrained.by_token[1]['lm']['blocks']['ffw']['up']['kernel'][1]
    assert apart.unsafe_buffer_pointer() == stack.unsafe_buffer_pointer() + apart.nbytes
    marks = search.Marks(pretrained.tokenizer.ends)
    greedy, beams = [], []
    for model_params in ((pretrained.model, pretrained.params), pretrained.by_token):
        common = (*model_params, read, jax.random.key(0))
        greedy.append(search.answer(*common, Sampling(5), marks))
        beams.append(search.answer(*common, Sampling(5, num_beams=2), marks))
    np.testing.assert_array_equal(*greedy)
    np.testing.assert_array_equal(*beams)


@pytest.mark.parametrize(
    'wrong',
    [
        dict(num_beams=0),
        dict(temperature=-1.0),
        dict(temperature=float('nan')),
        dict(temperature=float('inf')),
        dict(top_k=-1),
        dict(top_p=0.0),
        dict(length_penalty=float('nan')),
        dict(max_new_tokens=0),
    ],
)
def test_numbers_that_mean_nothing_are_refused(pretrained, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f'^{name} is {value!r}. It must be ') as refused:
        pretrained.generate([' Output:'], **wrong)
    others = {'num_beams', 'temperature', 'top_k', 'top_p', 'length_penalty', 'max_new_tokens'} - {name}
    assert not any(other in str(refused.value) for other in others)


def unchecked(**fields) -> Sampling:
    """Settings without the tests' own check of types."""
    made = object.__new__(Sampling)
    for field in dataclasses.fields(Sampling):
        object.__setattr__(made, field.name, fields.get(field.name, field.default))
    made.__post_init__()
    return made


@pytest.mark.parametrize('wrong', [dict(num_beams=1.5), dict(temperature='warm'), dict(top_k=0.5), dict(top_p=None)])
def test_what_is_no_number_is_refused(wrong):
    """Without the tests' own check of types."""
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f'^{name} is {value!r}. It must be '):
        unchecked(**wrong)


@pytest.mark.long
def test_sampling_follows_its_limits(pretrained, stills):
    prompt = [stills[0], ' Output:']
    greedy_answer = pretrained.generate(prompt, max_new_tokens=4)
    assert pretrained.generate(prompt, max_new_tokens=4, temperature=1.0, top_k=1) == greedy_answer
    assert pretrained.generate(prompt, max_new_tokens=4, temperature=1.0, top_p=1e-6) == greedy_answer
    answers = {pretrained.generate(prompt, max_new_tokens=4, temperature=2.0, seed=seed) for seed in range(6)}
    assert len(answers) > 1
    again = [pretrained.generate(prompt, max_new_tokens=4, temperature=2.0, seed=3) for _ in range(2)]
    assert again[0] == again[1]
    with pytest.raises(ValueError, match='exclude each other. Give num_beams or temperature'):
        pretrained.generate(prompt, num_beams=2, temperature=1.0)


def test_sampled_tokens_have_their_probabilities(pretrained):
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32)).repeat(4000, axis=0)
    keys = jax.random.split(jax.random.key(0), 4000)
    for how, expected in (
        (search.Drawing(1.0), [0.5, 0.3, 0.15, 0.05]),
        (search.Drawing(1.0, top_k=2), [0.625, 0.375, 0, 0]),
        (search.Drawing(1.0, top_p=0.6), [0.625, 0.375, 0, 0]),
        (search.Drawing(0.5), np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365),
    ):
        drawn = np.bincount(np.asarray(search.next_token(jnp.asarray(logits), keys, how)), minlength=4) / 4000
        np.testing.assert_allclose(drawn, expected, atol=0.03)


def test_trunk_and_resampler_run_once_an_image(pretrained, stills, monkeypatch):
    seen = []
    resample = decode._resample
    monkeypatch.setattr(decode, '_resample', lambda m, p, images: seen.append(len(images)) or resample(m, p, images))
    prompt = [stills[0], ' Output: dax<EOC>', stills[1], ' Output:']
    for how in (dict(), dict(num_beams=3), dict(temperature=1.0)):
        seen.clear()
        dataclasses.replace(pretrained).generate(prompt, max_new_tokens=12, **how)
        assert seen == [2], 'two images, whatever the number of tokens or beams'
    seen.clear()
    again = dataclasses.replace(pretrained)
    again.score(prompt, [' dax', ' wug', ' mi mi mi'])
    assert seen == [2]
    again.score([prompt, [stills[2].copy(), *prompt], [PIL.Image.fromarray(stills[1]), *prompt]], [' dax'])
    assert seen == [2, 2], 'two of them were not shown before'


def test_the_trunk_takes_a_video_as_so_many_images(pretrained, stills, monkeypatch):
    """A batch of videos of 30 frames each would not fit a device as so many images do."""
    seen = []
    resample = decode._resample
    monkeypatch.setattr(decode, '_resample', lambda m, p, images: seen.append(images.shape) or resample(m, p, images))
    videos = [np.stack([stills[i], stills[(i + 1) % 3]] * 4) for i in range(3)]
    found = decode.resample(pretrained.model, pretrained.params, videos)
    assert seen and all(shape[0] * shape[2] <= 16 for shape in seen)  # Of a CPU.
    alone = [decode.resample(pretrained.model, pretrained.params, [video])[0] for video in videos]
    np.testing.assert_allclose(np.stack(found), np.stack(alone), atol=1e-5)


def shots_of(stills):
    """Examples that many prompts begin with: 3 images, and more tokens than it takes to share them."""
    return [item for i in range(3) for item in (stills[i], ' Output: lo mi lo mi lo<EOC>')]


def queries_of(stills):
    """What follows them: an image of its own, of two, without an image, and one of the examples' images again."""
    return [
        [stills[3], ' Output:'],
        [stills[4], ' Output: dax<EOC>', stills[5], ' Output: mi'],
        ['only text Output:'],
        [stills[0], ' Output: a longer one'],
    ]


def every_answer(pretrained, prompts):
    """Greedy answers, those of beams, the likeliest candidates, and likelihoods."""
    candidates = [' dax<EOC>', ' a wug', ' mi']
    return (
        pretrained.generate(prompts, 5),
        pretrained.generate(prompts, 5, num_beams=3),
        pretrained.choose(prompts, [candidates] * len(prompts)),
        pretrained.score(prompts, candidates),
    )


@pytest.fixture(params=['the last image', 'all images'])
def seeing(request, pretrained):
    """A model whose words see the last image (paper), or all images before them (IDEFICS)."""
    xattn = dataclasses.replace(pretrained.config.xattn, only_last_image=request.param == 'the last image')
    model = dataclasses.replace(pretrained.model, config=dataclasses.replace(pretrained.config, xattn=xattn))
    return dataclasses.replace(pretrained, model=model)


def test_answers_after_shared_examples_are_those_of_each_prompt_alone(pretrained, stills, monkeypatch):
    prompts = [[*shots_of(stills), *query] for query in queries_of(stills)[:2]]
    expected = [pretrained.generate(prompt, 5) for prompt in prompts]
    monkeypatch.setattr(prompt_cache, 'WORTHWHILE', 16)
    sharing = dataclasses.replace(pretrained)
    assert sharing.generate(prompts, 5) == expected
    assert len(sharing.reader.beginnings._kept) == 1


@pytest.mark.long
def test_examples_that_prompts_share_are_read_once(seeing, stills, monkeypatch):
    shots = shots_of(stills)
    prompts = [[*shots, *query] for query in queries_of(stills)]
    monkeypatch.setattr(prompt_cache, 'WORTHWHILE', 10**9)
    *expected, likelihoods = every_answer(dataclasses.replace(seeing), prompts)
    assert len(set(expected[0])) > 1

    monkeypatch.setattr(prompt_cache, 'WORTHWHILE', 16)
    read, seen, whole = [], [], prefill._prefill

    def counting(model, params, media, tokens, valid, *more):
        read.append(tokens.shape[0])
        return whole(model, params, media, tokens, valid, *more)

    resample = decode._resample
    monkeypatch.setattr(prefill, '_prefill', counting)
    monkeypatch.setattr(decode, '_resample', lambda m, p, images: seen.append(len(images)) or resample(m, p, images))
    sharing = dataclasses.replace(seeing)
    *answers, scores = every_answer(sharing, prompts)
    assert answers == expected
    np.testing.assert_allclose(scores, likelihoods, rtol=1e-4)
    assert read == [1, 4, 4, 4, 4], 'the examples once, then each time the four queries'
    assert sum(seen) == 6, 'each of six images once'

    # Prompts that come one at a time share what the model was told to remember.
    read.clear()
    alone = dataclasses.replace(seeing)
    alone.remember(shots)
    assert [alone.generate(prompt, 5) for prompt in prompts] == expected[0]
    assert [alone.generate(prompt, 5, num_beams=3) for prompt in prompts] == expected[1]
    for prompt, answer in zip(prompts[:2], expected[0], strict=False):  # What is kept is not used up.
        assert [written.text for written in alone.write(prompt, Sampling(5))][-1] == answer
    assert alone.reader.beginnings.of([encode(prompts[0], alone.tokenizer)]).prompt.same(encode(shots, alone.tokenizer))


def test_what_prompts_begin_with_ends_where_they_differ(pretrained, stills):
    t, shots = pretrained.tokenizer, shots_of(stills)

    def common(*prompts):
        prompts = [encode(prompt, t) for prompt in prompts]
        first = prompts[0].first(length := common_beginning(prompts, t))
        assert all(prompt.begins_with(first) for prompt in prompts)
        return length, len(first.images)

    length = len(encode(shots, t).tokens)
    queries = queries_of(stills)
    assert common([*shots, *queries[0]], [*shots, *queries[1]]) == (length, 3)
    assert common([*shots, *queries[0]], [*shots, *queries[2]]) == (length, 3)
    assert common([*shots, stills[3], ' one'], [*shots, stills[3], ' other']) == (length, 3), 'an open chunk'
    other = [stills[0], shots[1], stills[5], *shots[3:]]
    assert common([*shots, *queries[0]], [*other, *queries[0]]) == (len(encode(shots[:2], t).tokens), 1)
    assert common(shots, shots)[1] == 2, 'at least one token is left'
    assert common(['only text Output:'], ['only text of another kind'])[1] == 0
    assert common(['a'], ['b']) == (len(t.begin), 0)


def test_frames_of_a_video_and_a_still_in_one_prompt(pretrained, stills):
    video = stills[:3]
    prompt = [video, ' Output: dax<EOC>', stills[4], ' Output:']
    alone = [[stills[4], ' Output:'], [video, ' Output: dax']]
    assert pretrained.generate([prompt, *alone], max_new_tokens=3)[1:] == [
        pretrained.generate(p, max_new_tokens=3) for p in alone
    ]
    backwards = [video[::-1], *prompt[1:]]
    assert not np.allclose(pretrained.score(prompt, [' dax']), pretrained.score(backwards, [' dax']), atol=1e-6)


def test_images_come_in_any_form(pretrained, stills, tmp_path):
    path = tmp_path / 'a.png'
    PIL.Image.fromarray(stills[0]).save(path)
    frames = to_frames(stills[0], pretrained.config.image_size)
    features = pretrained.features(frames)
    forms = [stills[0], PIL.Image.fromarray(stills[0]), pathlib.Path(path), path.read_bytes(), features]
    scores = [pretrained.score([form, ' Output:'], [' dax'])[0] for form in forms]
    np.testing.assert_allclose(scores, scores[0], rtol=1e-5)


@pytest.mark.long
def test_a_mesh_answers_as_one_device(pretrained, stills, monkeypatch):
    """Three prompts, which no mesh divides; what is traced lays its activations on the mesh, as `plan` counts them."""
    mesh = make_mesh(2, 2, 2)
    boxed = jax.eval_shape(pretrained.model.init, jax.random.key(0))
    where = {name: rules.shardings(boxed[name], mesh) for name in pretrained.params}
    on_mesh = dataclasses.replace(pretrained, params=jax.device_put(pretrained.params, where), mesh=mesh)
    traced, constraint = [], nn.with_logical_constraint

    def watched(*args):
        traced.append(bool(nn.get_logical_axis_rules()))
        return constraint(*args)

    prompts, candidates = prompts_of(stills)[:3], [' dax<EOC>', ' a wug', ' mi']
    frames = to_frames(stills[0], pretrained.config.image_size)
    tokens = np.array([[*pretrained.tokenizer.image_tag, 20, 21, 22]] * 3)
    images = np.stack([frames[None]] * 3)
    monkeypatch.setattr(nn, 'with_logical_constraint', watched)
    generated = [
        on_mesh.generate(prompts, 5),
        on_mesh.generate(prompts, 5, num_beams=3),
        on_mesh.generate(prompts[0], 5),
    ]
    scores = on_mesh.score(prompts, candidates)
    chosen = on_mesh.choose(prompts, [candidates] * 3)
    logits, features = on_mesh.logits(images, tokens), on_mesh.features(frames)
    monkeypatch.undo()
    assert traced and all(traced)
    expected = [pretrained.generate(prompts, 5), pretrained.generate(prompts, 5, num_beams=3)]
    assert generated == [*expected, expected[0][0]]
    np.testing.assert_allclose(scores, pretrained.score(prompts, candidates), rtol=1e-4)
    assert chosen == scores.argmax(axis=1).tolist()
    np.testing.assert_allclose(logits, pretrained.logits(images, tokens), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(features, pretrained.features(frames), rtol=1e-4, atol=1e-4)
    # Each device has its rows, of the images and of the text.
    media, text, rows = on_mesh.read(fill(mesh, prompts), 4)
    assert {shard.data.shape[0] for shard in rows.addressable_shards} == {1}
    for stack in jax.tree.leaves((media.keys_values, text.cache)):
        assert {shard.data.shape[1] for shard in stack.addressable_shards} == {1}
    # Examples that they share are on each device once.
    monkeypatch.setattr(prompt_cache, 'WORTHWHILE', 16)
    shared = [[*shots_of(stills), *query] for query in queries_of(stills)[:3]]
    assert every_answer(on_mesh, shared)[:3] == every_answer(pretrained, shared)[:3]
    (kept,) = on_mesh.reader.beginnings._kept
    for stack in jax.tree.leaves((kept.media.keys_values, kept.text.cache)):
        assert {shard.data.shape[1] for shard in stack.addressable_shards} == {1}


def test_a_text_alone_is_a_prompt(pretrained):
    text = 'only text Output:'
    as_text, as_list = pretrained.write(text, Sampling(4)), pretrained.write([text], Sampling(4))
    assert [one.text for one in as_text] == [one.text for one in as_list]
    one = dataclasses.replace(pretrained)
    one.remember(text)
    assert one.reader.beginnings._kept[0].prompt.same(encode([text], one.tokenizer))


def test_a_row_that_no_token_has_is_never_written(pretrained):
    """Some vocabularies are padded to a round number."""
    tokenizer = copy.copy(pretrained.tokenizer)
    tokenizer.size -= 2
    spare = {pretrained.config.lm.vocab_size - i for i in (1, 2)}
    banned = set(dataclasses.replace(pretrained, tokenizer=tokenizer).banned)
    assert spare <= banned and not spare & set(pretrained.banned)


def test_an_image_alone_is_a_prompt(pretrained, stills):
    assert pretrained.generate(stills[0], 3) == pretrained.generate([stills[0]], 3)


def test_stop_cuts_the_answer(pretrained, stills):
    prompt = [stills[0], ' Output:']
    whole = pretrained.generate(prompt, max_new_tokens=6)
    assert len(whole) > 2
    assert pretrained.generate(prompt, max_new_tokens=6, stop=[whole[2]]) == whole.split(whole[2])[0].strip()


def test_a_letter_that_the_last_token_does_not_end_is_left_out(pretrained):
    """Most tokens of the tiny vocabulary are bytes, so that a hot random model cuts many letters."""
    t, cut = pretrained.tokenizer, 0
    with Engine(dataclasses.replace(pretrained)) as engine:
        for seed in range(24):
            how = dict(max_new_tokens=2, temperature=9.0, seed=seed)
            *_, last = pretrained.write('dax', Sampling(**how))
            assert last.text == pretrained.generate('dax', **how) == engine.ask('dax', Sampling(**how)).text()
            if re.fullmatch('<0x(C[2-9A-F]|[DE].|F[0-4])>', t.name(last.tokens[-1])):  # The first byte of several.
                assert last.text == t.decode(last.tokens[:-1]).rstrip('\ufffd').strip()
                cut += 1
    assert cut


def test_bad_prompts_say_what_is_wrong(pretrained, stills, tmp_path):
    with pytest.raises(ValueError, match='Item 0 .* contains the tag <image> .* Replace each tag by the image'):
        pretrained.generate(['<image> Output:'])
    with pytest.raises(ValueError, match='empty'):
        pretrained.generate([])
    with pytest.raises(ValueError, match='exceeds the context of 128'):
        pretrained.generate(['word ' * 200])
    with pytest.raises(ValueError, match='Give a string or an image'):
        pretrained.generate([3, ' Output:'])
    broken = tmp_path / 'broken.png'
    PIL.Image.fromarray(stills[0]).save(broken)
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ImageError, match='broken.png'):
        pretrained.generate([broken, ' Output:'])
    tags = list(pretrained.config.image_tag)
    for number, says in (
        (1, 'A text has 2 <image> tags, but there are 1'),
        (3, 'more than 2 <image> tags, but there are 3'),
    ):
        with pytest.raises(ValueError, match=says):
            pretrained.logits(np.zeros((1, number, 1, 16, 16, 3), np.uint8), np.array([tags + tags]))
    with pytest.raises(ValueError, match='need 2 lists of candidates'):
        pretrained.score([[' a'], [' b']], [[' x'], [' y'], [' z']])
    for candidates in (' yes<EOC>', '', []):
        with pytest.raises(ValueError, match='Give a list of at least one text'):
            pretrained.score([' a'], candidates)
    with pytest.raises(ValueError, match='The candidate is not valid Unicode'):
        pretrained.score([' a'], [' \udce9'])
    for row in (' yes<EOC>', []):
        with pytest.raises(ValueError, match='Give a list of at least one text'):
            pretrained.choose([[' a']], [row])


@pytest.mark.parametrize('content', [b'', b'{"model": ', b'[]', b'{"frozen_paths": 3}', b'\xff\xfe'])
def test_a_damaged_run_json_is_named_with_the_remedy(tmp_path, content):
    (tmp_path / 'run.json').write_bytes(content)
    with pytest.raises(ValueError, match='run.json is damaged .* start the training command again'):
        load(tmp_path)


def test_gated_blocks_may_begin_later(pretrained, stills):
    """As those of experiments/smollm_bridge: here one, before the second block of the language model."""
    c = pretrained.config
    config = dataclasses.replace(c, xattn=dataclasses.replace(c.xattn, first=1))
    model = dataclasses.replace(pretrained.model, config=config)
    xattn = jax.tree.map(lambda x: x[:1], pretrained.params['xattn'])
    late = dataclasses.replace(pretrained, model=model, params=pretrained.params | dict(xattn=xattn))
    prompt = prompts_of(stills)[0]
    media, text, _ = late.read([prompt], 4)
    expected, _ = forward(late, prompt, [45])
    for one, params in ((late.model, late.params), late.by_token):
        logits = decode.extend(one, params, *decode.begin(one, media, text, 1, 1), jnp.array([[45]]))[0]
        np.testing.assert_allclose(logits[0, 0], expected[-1], rtol=1e-3, atol=1e-3)
    assert len(look(late, prompt, [45]).weights) == 1


def test_each_row_draws_by_its_own_numbers():
    """Greedily, of the three likeliest up to .6, up to .6, and of all; .5, .3, .15 and .05 are likely."""
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32)).repeat(4000, axis=0)
    keys, kind = jax.random.split(jax.random.key(0), 4000), np.arange(4000) % 4
    top_p = np.where((kind == 1) | (kind == 2), 0.6, 1.0)
    how = search.Drawing(np.where(kind == 0, 0.0, 1.0), np.where(kind == 1, 3, 0), top_p)
    drawn = np.asarray(search.next_token(jnp.asarray(logits), keys, how))
    assert not drawn[kind == 0].any()
    for row, expected in ((1, [0.625, 0.375, 0, 0]), (2, [0.625, 0.375, 0, 0]), (3, [0.5, 0.3, 0.15, 0.05])):
        np.testing.assert_allclose(np.bincount(drawn[kind == row], minlength=4) / 1000, expected, atol=0.05)
    # Of the two likeliest, the first has .625, and so is enough for .6; of all four it has .5.
    assert not np.asarray(search.next_token(jnp.asarray(logits), keys, search.Drawing(1.0, 2, 0.6))).any()


def test_keys_differ_by_seed_and_step():
    seeds = Sampling(seed=[0, 1, 2, 3]).keys(4)
    keys = np.concatenate([jax.random.key_data(search.keys_of(seeds, step)) for step in range(3)])
    assert len(np.unique(keys, axis=0)) == 12


def test_a_sampled_answer_does_not_depend_on_its_place_in_the_batch(pretrained, stills):
    prompts, how = prompts_of(stills), dict(max_new_tokens=5, temperature=2.0)
    alone = [pretrained.generate(prompt, seed=3, **how) for prompt in prompts]
    assert pretrained.generate(prompts, seed=3, **how) == alone
    assert pretrained.generate(prompts[::-1], seed=3, **how) == alone[::-1]
    own = [pretrained.generate(prompt, seed=seed, **how) for seed, prompt in enumerate(prompts)]
    assert pretrained.generate(prompts, seed=range(4), **how) == own != alone
    *_, last = pretrained.write(prompts[1], Sampling(seed=1, **how))
    assert last.text == own[1]
    for wrong, says in (
        ([1, 2], '2 seeds for 4 prompts'),
        (1.5, 'seed is 1.5'),
        ([0, 1, 2, 2**63], f'seed is {2**63}'),
    ):
        with pytest.raises(ValueError, match=says):
            unchecked(seed=wrong).keys(4)


def test_a_model_is_shown_in_one_line(pretrained):
    shown = repr(dataclasses.replace(pretrained, step=7))
    size = sum(leaf.size for leaf in jax.tree.leaves(pretrained.params))
    assert shown.startswith(f'<Pretrained: {size:,} parameters (') and 'step 7' in shown
    assert len(shown) < 200 and '\n' not in shown


REFUSED = """
import flamingo_jax
from flamingo_jax.inference.serving import Engine
from flamingo_jax.inputs.prompts import chat

flamingo = flamingo_jax.load({bundle!r})
with Engine(flamingo) as engine:
    for act in (
        *(lambda wrong=wrong: flamingo.generate(wrong) for wrong in ({{'a': 1}}, {{'a'}}, 5, None, iter('ab'))),
        lambda: [*flamingo.write({{'a': 1}})],
        lambda: flamingo.remember({{'a': 1}}),
        lambda: flamingo.score({{'a': 1}}, [' b']),
        lambda: flamingo.score(['a'], {{' b': 1}}),
        lambda: flamingo.score(['a'], [1]),
        lambda: flamingo.choose({{'a': 1}}, [[' b']]),
        lambda: flamingo.choose([['a']], [{{' b'}}]),
        lambda: engine.ask({{'a': 1}}),
        lambda: chat({{'a': 1}}),
        lambda: flamingo.generate(['a'], max_new_tokens=1.5),
        lambda: flamingo.generate(['a'], stop={{'a': 1}}),
        lambda: flamingo.generate(['a'], seed=1.5),
    ):
        try:
            print('answered', act())
        except ValueError as error:
            print(error)
"""


def test_what_is_of_another_type_is_refused_by_its_type(pretrained, tmp_path):
    """In a process of its own: this one has the tests' check of types."""
    path = tmp_path / 'bundle'
    bundle.save(path, pretrained.config, pretrained.params, pretrained.tokenizer, 'text', card='')
    line = [sys.executable, '-c', REFUSED.format(bundle=str(path))]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    prompt = 'The prompt is of type {}. Give a list of strings and images in reading order.'
    assert done.stdout.splitlines() == [
        *map(prompt.format, ('dict', 'set', 'int', 'NoneType', 'str_ascii_iterator')),
        *[prompt.format('dict')] * 3,
        'The candidates are of type dict. Give a list of at least one text.',
        'The candidates are of type int. Give a list of at least one text.',
        'The prompts are of type dict. Give a list of prompts.',
        'The candidates are of type set. Give a list of at least one text.',
        *[prompt.format('dict')] * 2,
        'max_new_tokens is 1.5. It must be whole and 1 or more.',
        "stop is {'a': 1}. Give a sequence of texts that are not empty.",
        'seed is 1.5. It must be a whole number of at most 64 bits.',
    ]


def test_a_damaged_bundle_says_what_is_wrong(pretrained, tmp_path):
    """Git LFS is the remedy for its own pointers, and for nothing else."""
    path = tmp_path / 'whole'
    bundle.save(path, pretrained.config, pretrained.params, pretrained.tokenizer, 'text', card='')
    largest = max((path / 'params/lm').rglob('*'), key=lambda file: file.stat().st_size).relative_to(path)
    bytes_of = (path / largest).read_bytes()
    middle = len(bytes_of) // 2
    for name, content, says in (
        ('truncated', bytes_of[:1000], 'params/lm is damaged ('),
        ('changed', bytes_of[:middle] + bytes(512) + bytes_of[middle + 512 :], 'params/lm is damaged ('),
        ('pointer', b'version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 1\n', 'is a pointer of Git LFS'),
    ):
        shutil.copytree(path, tmp_path / name)
        (tmp_path / name / largest).write_bytes(content)
        (tmp_path / name / 'digests.json').unlink()  # As in a bundle from before there were digests.
        with pytest.raises(ValueError, match=re.escape(says)) as refused:
            load(tmp_path / name)
        said = str(refused.value)
        assert '<bound' not in said and 'tensorstore_spec' not in said and ('lfs pull' in said) == (name == 'pointer')
        assert 'again' in said or name == 'pointer'
    shutil.rmtree(path / 'params/lm')
    (path / 'params/lm').mkdir()
    (path / 'digests.json').unlink()
    with pytest.raises(ValueError, match='params/lm is missing. Copy or download'):
        load(path)
