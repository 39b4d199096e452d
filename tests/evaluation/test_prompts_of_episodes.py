"""How an episode becomes a prompt: as it is, and without its images."""

import copy
import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from flamingo_jax.evaluation.answers import clips, orders, written
from flamingo_jax.evaluation.checks import longest
from flamingo_jax.evaluation.episode_prompts import frames, prompt_of, words
from flamingo_jax.evaluation.rices import TOGETHER, pool
from flamingo_jax.evaluation.setting import Setting
from flamingo_jax.evaluation.task import Task
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.prompts import encode, encode_prompt
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.tasks.episode import Episode, Part

IMAGE = np.zeros((1, 2, 3), np.float32)  # Features.


class Source:
    """Images that are themselves."""

    def frames(self, image):
        return image

    encoded = key = identity = words = frames


def episode(*texts):
    parts = tuple(Part(IMAGE, Source(), text) for text in texts)
    return Episode(parts[:-1], parts[-1:], 'dax')


def test_images_and_texts_are_in_reading_order(tokenizer):
    one = episode(' dax', ' wug', '')
    assert prompt_of(one, None, tokenizer) == [' dax<EOC>', ' wug<EOC>', '']
    shown = prompt_of(one, frames, tokenizer)
    assert shown[1::2] == [' dax<EOC>', ' wug<EOC>', ''] and all(image is IMAGE for image in shown[::2])


SIGNS = ' Question: what do <EOC>, <image> and <|endofchunk|> on the sign mean? Answer:'


@pytest.mark.parametrize('tag', ['text', 'token', None])
def test_marks_in_a_text_of_a_data_set_are_its_characters(sentencepiece, tag):
    tokenizer = Tokenizer(sentencepiece, tag)
    asked = episode(f'{SIGNS} an <image>', SIGNS)
    tokens, shown = encode_prompt(prompt_of(asked, frames if tag else None, tokenizer), tokenizer, ImageFormat(8))
    assert len(shown) == (2 if tag else 0)
    tags = tokenizer.image_tag
    found = [i for i in range(len(tokens)) if tags and tuple(tokens[i : i + len(tags)]) == tags]
    assert len(found) == len(shown) and tokens.count(tokenizer.eoc) == bool(tag)
    image = '<image>' if tag else ''
    assert tokenizer.decode(tokens) == f'{image}{SIGNS} an <image>{tokenizer.chunk_end}{image}{SIGNS}'
    answer = dataclasses.replace(asked, candidates=('<EOC>', 'dax'))
    assert [
        tokenizer.decode(tokenizer.encode(text)) for c in answer.candidates for text in written(answer, c, tokenizer)
    ] == [f' <EOC>{tokenizer.chunk_end}', f' dax{tokenizer.chunk_end}']
    assert len(tokenizer.encode(written(answer, '<EOC>', tokenizer)[0])) > 3
    assert prompt_of(episode(' dax', ''), None, tokenizer) == [f' dax{tokenizer.chunk_end}', '']  # Nothing to quote.


def test_a_language_model_alone_reads_words_and_newlines(tokenizer):
    alone = Tokenizer(tokenizer.model)
    assert (tokenizer.chunk_end, alone.chunk_end) == ('<EOC>', '\n')
    told = prompt_of(episode(' dax', ''), lambda part: 'Cat.', alone)
    assert told == ['Cat. dax\n', 'Cat.']
    tokens, _ = encode_prompt(told, alone, ImageFormat(8))
    assert alone.decode(tokens) == 'Cat. dax\nCat.'


def test_words_for_an_image_stay_with_its_text_in_every_order(tokenizer):
    texts = [' dax', ' wug', ' lo', '']
    parts = tuple(Part(f'A{text}.', Source(), text) for text in texts)
    told = prompt_of(Episode(parts[:-1], parts[-1:], 'dax'), words, tokenizer)
    both = [f'A{text}.{text}<EOC>' for text in texts[:-1]]
    found = orders(told, 3, 8)
    assert all(sorted(one[:-1]) == sorted(both) and one[-1] == 'A.' for one in found)
    assert len({tuple(one) for one in found}) > 1


def test_a_mark_in_words_for_an_image_is_its_characters(tokenizer):
    part = Part('An <image>.', Source(), ' dax')
    (text, *_) = prompt_of(Episode((part,), (part,), 'dax'), words, tokenizer)
    assert tokenizer.decode(tokenizer.encode(text)) == 'An <image>. dax<EOC>'


def test_the_longest_prompt_is_the_longest_of_all_who_are_asked(pretrained):
    """Words in an image's place may be longer than its tag, which is all that the images themselves need."""
    said = 'A word' + ' and a word' * 8 + '.'

    @dataclasses.dataclass
    class Asked(Task):
        def episodes(self, *_, **__):
            parts = tuple(Part(said, Source(), text) for text in (' dax', ''))
            yield Episode(parts[:1], parts[1:], 'dax', id='0')

    config = ConfigDict(dict(episodes=1, max_new_tokens=3, num_beams=1, length_penalty=0.0, seed=0, other_images=''))
    how = dict(shots=1, support='random', answers='open-ended')
    alone = pretrained.language_model
    told = len(encode(f'{said} dax\n{said}', alone.tokenizer).tokens)
    shown = len(encode([IMAGE, ' dax<EOC>', IMAGE], pretrained.tokenizer).tokens)
    assert longest(Setting.of(config, Asked(told=True), **how), pretrained) == (told, 3)
    assert longest(Setting.of(config, Asked(), **how), pretrained) == (shown, 3) and shown < told


def test_words_for_an_image_end_as_a_sentence_but_before_a_colon():
    parts = [Part('A cat.', Source(), text) for text in (' kind: animal', ': dax', '')]
    assert [words(part) for part in parts] == ['A cat.', 'A cat', 'A cat.']


def test_a_prompt_of_nothing_has_a_first_token(tokenizer):
    """Without its image nothing is left of a prompt at zero shots, and some language models begin with no token."""
    without = copy.copy(tokenizer)
    without.begin = ()
    one = episode('')
    tokens, _ = encode_prompt(prompt_of(one, None, without), without, ImageFormat(8))
    assert tokens == [tokenizer.eoc]
    assert prompt_of(one, None, tokenizer) == ['']
    assert prompt_of(episode(' Output:'), None, without) == [' Output:']


def test_a_video_is_cut_into_clips():
    video = np.arange(7)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    prompt = [IMAGE, ' a<EOC>', video, ' b']
    assert [len(clip[2]) for clip in clips(prompt, 3)] == [3, 3, 1]
    assert all(clip[:2] == prompt[:2] and clip[3] == ' b' for clip in clips(prompt, 3))
    assert np.concatenate([clip[2] for clip in clips(prompt, 3)]).tolist() == video.tolist()
    assert len(clips(prompt, 0)) == len(clips(['a'], 3)) == 1


def test_features_are_pooled_in_batches_whatever_their_shapes():
    """The rows of one at a time, in their order."""
    rng, asked = np.random.default_rng(0), []

    def encode(batch):
        asked.append(batch.shape[:2])
        return batch.reshape(*batch.shape[:2], -1, 3).astype(np.float32) + 1

    pixels = [rng.integers(0, 256, (1 + (i > 40), 2, 2, 3), np.uint8) for i in range(50)]
    images = [*pixels[:3], rng.normal(size=(1, 4, 3)).astype(np.float16), *pixels[3:]]
    rows = pool(encode, iter(images), len(images))
    assert {shape for shape in asked} == {(TOGETHER, 1), (TOGETHER // 2, 2)} and len(asked) == 4
    for image, row in zip(images, rows, strict=True):
        mean = (image.astype(np.float32) + (image.dtype == np.uint8)).reshape(-1, 3).mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), rtol=1e-5)
