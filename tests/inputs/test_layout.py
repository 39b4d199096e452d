"""A document as it is trained on and the same as a prompt are the same tokens: one `Layout` writes both."""

import numpy as np
import pytest

from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.layout import Layout
from flamingo_jax.inputs.prompts import encode_prompt, is_continued
from flamingo_jax.inputs.rows import Chunk, Interleaved, RowFormat
from flamingo_jax.inputs.tokenizer import AROUND, IMAGE, Tokenizer
from flamingo_jax.training.objectives.aligned import Aligned

PIXELS = np.zeros((1, 1, 1), np.float32)
IDEFICS = (AROUND, IMAGE, '<end_of_utterance>')
KINDS = {
    'text': dict(image_tag='text'),
    'token': dict(image_tag='token'),
    'idefics': dict(image_tag='token', extra_tokens=IDEFICS[:2]),
    'idefics-instruct': dict(image_tag='token', extra_tokens=IDEFICS),
}


def documents():
    """Up to four chunks, with and without an image, with and without a text."""
    segments = ([], ['bodex'], ['Output: trusavi'])
    for number in (1, 2, 3, 4):
        rng = np.random.default_rng(number)
        for _ in range(20):
            shown, said = rng.random(number) < 0.6, rng.integers(0, 3, number)
            chunks = [(bool(p), segments[s]) for p, s in zip(shown, said, strict=True) if p or s]
            if chunks:
                yield chunks


@pytest.mark.parametrize('kind', KINDS)
def test_training_and_prompts_can_not_differ(sentencepiece, kind):
    tokenizer = Tokenizer(sentencepiece, **KINDS[kind])
    end = '' if tokenizer.eoc is None else '<EOC>'
    for document in documents():
        chunks = [Chunk((lambda: PIXELS) if shown else None, said, [1.0] * len(said)) for shown, said in document]
        row = Interleaved.of(chunks, tokenizer, PIXELS, np.random.default_rng(0), RowFormat(256, 4))
        prompt = []
        for shown, said in document:
            prompt += [PIXELS] * shown
            text = ''.join(said) + end
            if prompt and isinstance(prompt[-1], str):
                prompt[-1] += text
            elif text:
                prompt.append(text)
        if prompt:
            tokens, images = encode_prompt(prompt, tokenizer, ImageFormat(8))
            assert row.tokens[: row.used].tolist() == [*tokens, tokenizer.eos], document
            assert len(images) == row.phi.max() == sum(shown for shown, _ in document)


def test_what_goes_on_with_what(tokenizer):
    """`is_continued` tells how the next text is encoded, before it is there."""
    for prompt in (['a'], ['a', PIXELS], ['a<EOC>'], [PIXELS, 'a', ''], [PIXELS, '']):
        layout = Layout(tokenizer)
        for item in prompt:
            layout.text(item) if isinstance(item, str) else layout.image()
        assert layout.continues == is_continued(prompt, tokenizer) == (prompt[-1] in ('a', '') and 'a' in prompt)


def test_a_line_break_after_an_example_ends_no_chunk_again(tokenizer):
    """As OpenFlamingo writes its prompts: <EOC>, a line break, the next image's tag."""
    tokens, _ = encode_prompt([PIXELS, 'a<EOC>\n', PIXELS, 'b'], tokenizer, ImageFormat(8))
    plain, _ = encode_prompt([PIXELS, 'a<EOC>', PIXELS, 'b'], tokenizer, ImageFormat(8))
    at, line = plain.index(tokenizer.eoc) + 1, tokenizer.encode('\n')
    assert line and tokens == [*plain[:at], *line, *plain[at:]]


def test_marks_in_somebodys_text_are_text(tokenizer):
    """A web page that says <EOC> ends no chunk, and one that says <image> shows no image."""
    page = Chunk(lambda: PIXELS, ['the tags <EOC> and <image>'], [1.0])
    row = Interleaved.of([page], tokenizer, PIXELS, np.random.default_rng(0), RowFormat(64, 2))
    assert (row.tokens == tokenizer.eoc).sum() == 1 and row.phi.max() == 1  # The chunk's own.
    assert '<EOC> and <image>' in tokenizer.decode(row.tokens[: row.used - 2])


@pytest.mark.parametrize('kind', KINDS)
def test_an_aligned_image_is_seen_from_where_an_interleaved_one_is(sentencepiece, kind):
    """From its tag on, and not from the token that IDEFICS puts before it."""
    tokenizer = Tokenizer(sentencepiece, **KINDS[kind])
    document = [Chunk(lambda: PIXELS, ['bodex'], [1.0])]
    pair = Aligned.of(document, tokenizer, PIXELS, np.random.default_rng(0), RowFormat(8))
    row = Interleaved.of(document, tokenizer, PIXELS, np.random.default_rng(0), RowFormat(64, 1))
    shown = len(pair.tokens) - 1  # What ends the chunk comes later in the document.
    assert pair.tokens[:shown].tolist() == row.tokens[:shown].tolist()
    assert pair.phi[:shown].tolist() == row.phi[:shown].tolist() and 0 in pair.phi
