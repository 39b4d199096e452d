"""Beam search for every layout of a prompt and every kind of language model, against a plain one without caches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.inputs.prompts import encode_prompt
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.quantised import Quantisation, quantise

pytestmark = pytest.mark.usefixtures('quick_compilation')
STEPS, BEAMS = 4, 3


@pytest.fixture(scope='module')
def pretrained(pretrained):
    """The tests' model with new random blocks that say more than its last token, and gates that are wide open."""
    rng = np.random.default_rng(3)
    lm, xattn = pretrained.params['lm'], pretrained.params['xattn']
    blocks = jax.tree.map(lambda x: jnp.asarray(x + 0.5 * rng.standard_normal(x.shape), jnp.float32), lm['blocks'])
    open_wide = {name: jnp.full_like(x, 2.0) if name.startswith('alpha') else x for name, x in xattn.items()}
    return dataclasses.replace(
        pretrained, params=pretrained.params | dict(lm=lm | dict(blocks=blocks), xattn=open_wide)
    )


def beams_of(pretrained, prompt, length_penalty=0.0, longest=64):
    """The tokens of the best beam, by whole forward passes and by the definition in `search.answer`."""
    tokens, stills = encode_prompt(prompt, pretrained.tokenizer, pretrained.image_format)
    images = np.stack(stills)[None].repeat(BEAMS, 0) if stills else None
    live, finished = [(0.0, [])], []
    for step in range(STEPS):
        rows = [[*tokens, *written] for _, written in live]
        padded = np.full((BEAMS, longest), pretrained.tokenizer.pad, np.int32)
        for i, row in enumerate(rows):
            padded[i, : len(row)] = row
        after = np.asarray(pretrained.logits(images, padded), np.float64)[: len(rows), len(rows[0]) - 1]
        logp = after - np.logaddexp.reduce(after, axis=1, keepdims=True)
        logp[:, list(pretrained.banned)] = -np.inf
        every = sorted(
            (
                (score + logp[i, t], [*written, t])
                for i, (score, written) in enumerate(live)
                for t in range(len(logp[i]))
            ),
            key=lambda one: -one[0],
        )[: 2 * BEAMS + BEAMS * len(pretrained.ends)]
        finished += [
            (score / (step + 1) ** length_penalty, written[:-1])
            for score, written in every[:BEAMS]
            if written[-1] in pretrained.ends
        ]
        finished = sorted(finished, key=lambda one: -one[0])[:BEAMS]
        live = [one for one in every if one[1][-1] not in pretrained.ends][:BEAMS]
    every = finished + [(score / STEPS**length_penalty, written) for score, written in live]
    return max(every, key=lambda one: one[0])[1]


def layouts(stills):
    """Images in a sequence, first, last and between texts; videos; videos among stills; several in a row; none."""
    video = list(stills[:3])
    return dict(
        shots=[stills[0], ' Output: dax<EOC>', stills[1], ' Output: wug<EOC>', stills[2], ' Output:'],
        text_first=['lo lo lo mi<EOC>', stills[2], ' Output:'],
        image_last=[' Output: dax', stills[4]],
        video=[video, ' Output:'],
        videos=[video, ' Output: dax<EOC>', list(stills[3:]), ' Output:'],
        in_a_row=[stills[3], stills[4], stills[5], ' Output:'],
        text=['only text Output:'],
    )


def written(pretrained, prompts, length_penalty=0.0):
    """What `generate` gives, and what each prompt gives alone."""
    how = dict(max_new_tokens=STEPS, num_beams=BEAMS, length_penalty=length_penalty)
    return pretrained.generate(prompts, **how)


def expect(pretrained, prompts, length_penalty=0.0):
    tokens = (np.array(beams_of(pretrained, prompt, length_penalty), np.int32) for prompt in prompts)
    return [pretrained._written(row, ()).text for row in tokens]


def test_images_videos_and_texts_in_one_batch(pretrained, stills):
    prompts = [layouts(stills)[name] for name in ('videos', 'text_first', 'text')]
    expected = expect(pretrained, prompts)
    assert len(set(expected)) > 1
    assert written(pretrained, prompts) == expected


@pytest.mark.long
def test_every_layout_of_a_prompt(pretrained, stills):
    """In one batch, and some alone. Stills and videos of one prompt, which the plain model cannot read, only so."""
    every, length_penalty = layouts(stills), 1.0
    mixed = [stills[3], ' Output: dax<EOC>', list(stills[:3]), ' Output:']
    expected = [*expect(pretrained, every.values(), length_penalty), written(pretrained, mixed, length_penalty)]
    assert len(set(expected)) > 2
    assert written(pretrained, [*every.values(), mixed], length_penalty) == expected
    for name in ('videos', 'text'):
        assert [written(pretrained, every[name], length_penalty)] == expect(pretrained, [every[name]], length_penalty)


@pytest.mark.long
def test_a_quantised_language_model(pretrained, stills):
    how = Quantisation('int4')
    params = pretrained.params | {'lm': quantise(pretrained.params['lm'], how, jnp.float32)}
    model = dataclasses.replace(pretrained, model=Flamingo(pretrained.config, quantised=how), params=params)
    prompts = [layouts(stills)[name] for name in ('shots', 'videos', 'text')]
    assert written(model, prompts) == expect(model, prompts)


@pytest.mark.long
def test_an_end_that_is_the_likeliest(pretrained, stills):
    """Where <EOC> is often among the likeliest, beams finish at different steps."""
    tokens = pretrained.params['lm']['embedder']['tokens']
    params = jax.tree.map(lambda x: x, pretrained.params)
    mean = jnp.asarray(tokens).mean(0)
    params['lm']['embedder'] = params['lm']['embedder'] | dict(
        tokens=jnp.asarray(tokens).at[pretrained.tokenizer.eos].add(3 * mean)
    )
    model = dataclasses.replace(pretrained, params=params)
    prompts = list(layouts(stills).values())[:3]
    for length_penalty in (0.0, 1.0, -1.0):
        assert written(model, prompts, length_penalty) == expect(model, prompts, length_penalty)
