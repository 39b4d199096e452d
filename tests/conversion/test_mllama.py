"""Llama 3.2 Vision against transformers' with random weights of odd sizes, and what needs no original."""

import dataclasses
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

from flamingo_jax.checkpoints import bundle, export
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import mllama
from flamingo_jax.conversion.folders import chat_template
from flamingo_jax.conversion.hugging_face import open_tensors
from flamingo_jax.inference import pretrained
from flamingo_jax.inputs.images import ImageFormat, to_frames
from flamingo_jax.inputs.prompts import LLAMA3, chat, dialogue_of, encode_prompt
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.serving.conversation import Message, answer_of, prompt_of
from tests import peers

pytestmark = pytest.mark.usefixtures('quick_compilation')

TOLERANCE = 1e-4  # Relative to the largest logit.
IMG, V, TILE = 94, 94, 42
ROW = 'Llama 3.2 Vision'


def image(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    rng = np.random.default_rng([seed, width, height])
    return PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))


# Of one, two, three and four tiles.
WIDE, SMALL, TALL, SQUARE = image(120, 30), image(20, 33), image(40, 100), image(90, 77)
PROMPTS = {
    'one image': [[WIDE, 'w1 w2 w3 w4']],
    'images side by side': [['w1', SMALL, TALL, 'w2 w3', SQUARE, WIDE, SMALL, 'w4 w5']],
    'text before the first image': [['w1 w2 w3', TALL, 'w4 w5 w6']],
    'different numbers of images': [[WIDE, TALL, 'w1', SQUARE, 'w2 w3'], ['w4 w5', SMALL, 'w6 w7 w8 w9']],
    'an image at the end': [['w1', SMALL, 'w2', WIDE, TALL]],
}


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    """(the original, ours, the folder)."""
    pytest.importorskip('torch')
    pytest.importorskip('transformers')
    folder = tmp_path_factory.mktemp('mllama')
    model = peers.mllama(folder / 'source')
    write(mllama.convert, str(folder / 'source'), str(folder / 'bundle'))
    return model, pretrained.load(folder / 'bundle'), folder


def processor_of(folder):
    """The original's processor, with PIL."""
    import transformers

    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / 'source' / 'tokenizer.json'),
        bos_token='<s>',
        eos_token='</s>',
        pad_token='<pad>',
        unk_token='<unk>',
        padding_side='left',
    )
    vision = mllama.MllamaViTConfig()
    size = dict(height=TILE, width=TILE)
    images = transformers.MllamaImageProcessorPil(size=size, image_mean=vision.mean, image_std=vision.std)
    return transformers.MllamaProcessor(images, fast)


def prepared(processor, prompts):
    """What the original takes of prompts; they begin with <s>, as in Meta's code."""
    texts = ['<s>' + ' '.join(x if isinstance(x, str) else '<|image|>' for x in prompt) for prompt in prompts]
    images = [[x for x in prompt if not isinstance(x, str)] for prompt in prompts]
    return processor(images=images, text=texts, padding=True, add_special_tokens=False, return_tensors='pt')


def features_of(ours, rows):
    """Features of rows of images [b n 1 s d_v], padded with zeros."""
    n = max(map(len, rows))
    out = np.zeros((len(rows), n, 1, ours.config.media_tokens, ours.config.vision.width), np.float32)
    for i, row in enumerate(rows):
        for j, one in enumerate(row):
            out[i, j] = ours.features(to_frames(one, TILE, 'canvas'))
    return out


def ours_of(ours, prompts):
    """(features, tokens) of prompts, padded on the right."""
    encoded = [encode_prompt(prompt, ours.tokenizer, ours.image_format)[0] for prompt in prompts]
    tokens = np.zeros((len(prompts), max(map(len, encoded))), np.int32)
    for row, ids in zip(tokens, encoded, strict=True):
        row[: len(ids)] = ids
    return features_of(ours, [[x for x in prompt if not isinstance(x, str)] for prompt in prompts]), tokens, encoded


@pytest.mark.parity
@pytest.mark.parametrize('case', PROMPTS)
def test_logits_and_tokens(both, case, record_property):
    import torch

    model, ours, folder = both
    x = prepared(processor_of(folder), PROMPTS[case])
    images, tokens, encoded = ours_of(ours, PROMPTS[case])
    got = np.asarray(ours.logits(images, tokens))
    with torch.no_grad():
        expected = model(**x).logits.numpy()
    largest, difference = np.abs(expected).max(), 0.0
    for i, ids in enumerate(encoded):
        assert x['input_ids'][i, -len(ids) :].tolist() == ids
        there = got[i, : len(ids), :V], expected[i, -len(ids) :]
        difference = max(difference, float(np.abs(there[0] - there[1]).max() / largest))
    print(f'{case}: largest difference {difference:.1e}')
    assert difference < TOLERANCE
    blind = np.asarray(ours.logits(images[..., ::-1], tokens))
    assert np.abs(blind - got)[..., :V].max() > 100 * TOLERANCE * largest
    record_property('row', ROW)
    record_property('difference', difference)


@pytest.mark.parity
@pytest.mark.parametrize('beams', [1, 3])
def test_generation(both, beams, record_property):
    import torch

    model, ours, folder = both
    prompts = [prompt for several in PROMPTS.values() for prompt in several]
    got = ours.generate(prompts, max_new_tokens=12, num_beams=beams)
    x = prepared(processor_of(folder), prompts)
    with torch.no_grad():
        how = dict(num_beams=beams, length_penalty=0.0, eos_token_id=2, suppress_tokens=[0, 1], do_sample=False)
        out = model.generate(**x, max_new_tokens=12, pad_token_id=0, **how)
    expected = []
    for row in out[:, x['input_ids'].shape[1] :].tolist():
        row = row[: row.index(2)] if 2 in row else row
        expected.append(ours.tokenizer.decode(row).strip())
    assert got == expected
    assert len(set(got)) > 1
    record_property('row', ROW)
    record_property('equal', 'beams' if beams > 1 else 'greedy')


SHAPES = [(w, h) for w in (1, 20, 41, 42, 43, 84, 85, 100, 126, 169, 500) for h in (1, 30, 42, 60, 83, 127, 168, 400)]


@pytest.mark.parity
def test_pixels_and_canvases(both):
    """Those of the original's processor with PIL, and with another tile."""
    _, ours, folder = both
    processor = processor_of(folder)
    vision = ours.config.vision
    for width, height in SHAPES:
        one = image(width, height)
        x = processor.image_processor(images=[[one]], return_tensors='np')
        (frame,) = to_frames(one, TILE, 'canvas')
        rows, columns = vision.arrangement(*frame.shape[:2])
        assert mllama.ARRANGEMENTS.index((rows, columns)) + 1 == x['aspect_ratio_ids'].item(), (width, height)
        n = rows * columns
        assert x['aspect_ratio_mask'][0, 0].tolist() == [1] * n + [0] * (4 - n)
        tiles = frame.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2).reshape(n, TILE, TILE, 3)
        expected = peers.standardised(tiles, vision).numpy()
        np.testing.assert_allclose(x['pixel_values'][0, 0, :n], expected, atol=1e-5, err_msg=f'{width} x {height}')
        assert not x['pixel_values'][0, 0, n:].any()


@pytest.mark.parity
def test_what_text_may_see_is_what_the_processor_says(both):
    _, ours, folder = both
    processor = processor_of(folder)
    for case, prompts in PROMPTS.items():
        x = prepared(processor, prompts)
        _, tokens, encoded = ours_of(ours, prompts)
        at = ours.model.place(jnp.asarray(tokens))
        n = x['cross_attention_mask'].shape[2]
        seen = (at.run.first[..., None] <= np.arange(1, n + 1)) & (np.arange(1, n + 1) <= at.phi[..., None])
        for i, ids in enumerate(encoded):
            expected = x['cross_attention_mask'][i, -len(ids) :].numpy().any(axis=-1)
            np.testing.assert_array_equal(seen[i, : len(ids)], expected, err_msg=case)


@pytest.mark.parity
def test_export_is_the_folder_again(both, record_property):
    import transformers

    _, ours, folder = both
    out = folder / 'exported'
    export.to_mllama(str(folder / 'bundle'), str(out))
    before, after = open_tensors(folder / 'source'), open_tensors(out)
    assert set(before) == set(after)
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    model = transformers.AutoModelForImageTextToText.from_pretrained(out)
    assert type(model).__name__ == 'MllamaForConditionalGeneration'
    processor = transformers.AutoProcessor.from_pretrained(out, backend='pil')
    assert type(processor).__name__ == 'MllamaProcessor'
    x = prepared(processor, PROMPTS['images side by side'])
    assert x['input_ids'][0].tolist() == ours_of(ours, PROMPTS['images side by side'])[2][0]
    record_property('row', ROW)
    record_property('equal', 'export')


@pytest.mark.parity
@pytest.mark.parametrize('size, count', [('11b', 10_670_220_835), ('90b', 88_593_355_323)])
def test_parameters_of_the_originals(size, count):
    import torch
    import transformers

    config = transformers.MllamaConfig(**mllama.PUBLISHED[size])
    with torch.device('meta'):
        model = transformers.MllamaForConditionalGeneration(config)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize('size, count', [('11b', 10_670_220_835), ('90b', 88_593_355_323)])
def test_parameters(size, count):
    """Those that transformers has, and the mean and deviation of the features."""
    config = mllama.config_of(mllama.PUBLISHED[size])
    shapes = jax.eval_shape(Flamingo(config).init, jax.random.key(0))
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == count + 2 * config.vision.width
    assert config.media_tokens == 4 * 1601 and config.vision.width == 7680
    assert config.xattn_blocks == (8 if size == '11b' else 20)


FIELDS = dict(
    model_type='mllama',
    image_token_index=V,
    text_config=dict(
        vocab_size=V,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=9,
        num_attention_heads=4,
        num_key_value_heads=2,
        cross_attention_layers=[1, 4, 7],
        max_position_embeddings=160,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    vision_config=dict(
        hidden_size=48,
        attention_heads=4,
        intermediate_size=80,
        num_hidden_layers=5,
        num_global_layers=2,
        image_size=TILE,
        patch_size=14,
        intermediate_layers_indices=[1, 2, 4],
        vision_output_dim=192,
    ),
)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """(folder, tensors) of a tiny one with random weights."""
    folder = tmp_path_factory.mktemp('mllama') / 'source'
    folder.mkdir()
    (folder / 'config.json').write_text(json.dumps(FIELDS))
    tensors = mllama.tensors_of(mllama.config_of(FIELDS))
    state = {tensor.name: peers.value(tensor.name, tensor.shape) for tensor in tensors}
    safetensors.numpy.save_file(state, folder / 'model.safetensors')
    peers.write_tokenizer(folder, ('<|image|>',))
    return folder, state


@pytest.fixture(scope='module')
def ours(source, tmp_path_factory):
    path = tmp_path_factory.mktemp('bundle') / 'bundle'
    write(mllama.convert, str(source[0]), str(path))
    return pretrained.load(path)


def test_the_command_and_its_inverse(source, tmp_path):
    folder, state = source
    write(mllama.convert, str(folder), str(tmp_path / 'bundle'))
    export.to_mllama(str(tmp_path / 'bundle'), str(tmp_path / 'again'))
    again = open_tensors(tmp_path / 'again')
    assert set(again) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    before, after = (json.loads((path / 'config.json').read_text()) for path in (folder, tmp_path / 'again'))
    assert mllama.config_of(before) == mllama.config_of(after)
    write(mllama.convert, str(tmp_path / 'again'), str(tmp_path / 'bundle again'))
    assert bundle.read(tmp_path / 'bundle again').checksums == bundle.read(tmp_path / 'bundle').checksums
    found = bundle.read(tmp_path / 'bundle again')
    assert found.tokenizer().image_tag == (IMG,) and found.config.image_tag == (IMG,)
    with pytest.raises(ValueError, match='cannot be written as an IDEFICS'):
        export.to_idefics(str(tmp_path / 'bundle'), str(tmp_path / 'x'))


def test_names_that_transformers_has_in_memory_are_read_too(source, tmp_path):
    folder, state = source
    other = tmp_path / 'other'
    shutil.copytree(folder, other)
    config = mllama.config_of(FIELDS)
    pairs = zip(mllama.tensors_of(config), mllama.tensors_of(config, mllama.PREFIXES[1]), strict=True)
    safetensors.numpy.save_file({b.name: state[a.name] for a, b in pairs}, other / 'model.safetensors')
    _, one, *_ = mllama.convert(str(folder))
    _, two, *_ = mllama.convert(str(other))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_decoding_agrees_with_the_whole_text(ours):
    """Batches, caches and beginnings that prompts share, also one that ends between two images side by side."""
    words = ' '.join(f'w{i}' for i in range(40))
    prompts = [[words, SMALL, TALL, 'w1 w2'], [words, SMALL, WIDE, 'w3'], [words, SMALL, 'w4', SQUARE], ['w5', TALL]]
    images, tokens, encoded = ours_of(ours, prompts)
    whole = jax.nn.log_softmax(ours.logits(images, tokens))
    last = np.stack([row[len(ids) - 1] for row, ids in zip(whole, encoded, strict=True)])

    def close(a, b):
        np.testing.assert_allclose(a[..., :V], b[..., :V], atol=2e-4)

    close(jax.nn.log_softmax(ours.read(prompts, 4).logits), last)
    for i, prompt in enumerate(prompts):
        close(jax.nn.log_softmax(ours.read([prompt], 4).logits)[0], last[i])
    close(jax.nn.log_softmax(ours.read(prompts[:2], 4).logits), last[:2])  # They share the first of two images.
    ours.remember([words, SMALL])
    close(jax.nn.log_softmax(ours.read(prompts[:2], 4).logits), last[:2])
    alone = [ours.generate(prompt, max_new_tokens=6) for prompt in prompts]
    assert ours.generate(prompts, max_new_tokens=6) == alone
    answer = ours.tokenizer.encode(alone[0], continues=True)
    images, tokens, _ = ours_of(ours, [[*prompts[0][:-1], f'w1 w2 {alone[0]}']])
    greedy = np.array(ours.logits(images, tokens))[0, len(encoded[0]) - 1 : -1, :V]
    greedy[:, [0, 1]] = -np.inf
    assert greedy.argmax(axis=-1).tolist()[: len(answer)] == answer


def test_no_text_is_continued_by_an_image(ours):
    """The rows beyond the vocabulary have no probability, and those of the others sum to 1."""
    logits = ours.logits(None, np.array([[1, 5, 6]]))
    assert logits.shape[-1] == V + mllama.EXTRA
    assert np.asarray(jax.nn.softmax(logits))[..., V:].max() == 0


def test_text_alone_is_the_language_models(ours):
    tokens = np.array([[1, 5, 6, 7, 8]])
    alone = Flamingo(dataclasses.replace(ours.config, xattn=None, extra_tokens=(), extra_unwritten=False))
    np.testing.assert_array_equal(ours.logits(None, tokens)[..., :V], jax.jit(alone.logits)(ours.params, None, tokens))
    before = ours.logits(features_of(ours, [[WIDE]]), np.array([[1, 5, 6, 7, 8, IMG, 9]]))
    np.testing.assert_allclose(before[:, :5, :V], ours.logits(None, tokens)[..., :V], atol=1e-5)


def test_tiles_that_are_not_there_are_not_seen(ours):
    """Whatever their media tokens would be."""
    images = features_of(ours, [[SMALL]])
    assert not images[0, 0, 0, 10:].any() and images[0, 0, 0, :10].all(axis=-1).all()
    tokens = np.array([[1, IMG, 5, 6]])
    cut = dataclasses.replace(ours.model, config=ours.config)
    media = cut.media(ours.params, jnp.asarray(images))
    assert not np.asarray(media.tokens[0, 10:]).any()
    shown = images.copy()
    shown[0, 0, 0, 10:] = 1
    assert np.abs(ours.logits(images, tokens) - ours.logits(shown, tokens))[..., :V].max() > 1e-3


def test_an_image_of_another_size_is_refused(ours):
    with pytest.raises(ValueError, match='84 x 210 pixels is no canvas of up to 4 tiles of 42'):
        ours.encode(np.zeros((1, 1, 84, 210, 3), np.uint8))


def test_canvases():
    """As the original's processor chose them: width and height -> rows and columns, width and height on the canvas."""
    recorded = {(120, 30): (42, 126), (20, 33): (42, 42), (40, 100): (126, 42), (90, 77): (84, 84), (500, 1): (42, 168)}
    for sides, shape in recorded.items():
        assert to_frames(image(*sides), TILE, 'canvas').shape == (1, *shape, 3)
    (frame,) = to_frames(image(20, 33), TILE, 'canvas')
    assert frame[:, :25].any(axis=-1).all() and not frame[:, 25:].any()


def test_training_takes_images_of_one_tile():
    """As the processor's with max_image_tiles=1."""
    (frame,) = to_frames(image(120, 30), TILE, 'tile')
    assert frame.shape == (TILE, TILE, 3) and frame[:10].any(axis=-1).all() and not frame[10:].any()
    assert ImageFormat(TILE, 'canvas').square == ImageFormat(TILE, 'tile')
    assert ImageFormat(TILE, 'crop').square == ImageFormat(TILE, 'crop')


def test_dialogues_are_written_as_llama_3s_template():
    prompt = chat([SMALL, 'What is it?'], 'A cat.', 'Sure?', system='Be brief.', marks=LLAMA3)
    said = ''.join('<|image|>' if part is SMALL else part for part in prompt)
    head = '<|start_header_id|>{}<|end_header_id|>\n\n'.format
    assert said == (
        f'{head("system")}Be brief.<|eot_id|>{head("user")}<|image|>What is it?<|eot_id|>{head("assistant")}'
        f'A cat.<|eot_id|>{head("user")}Sure?<|eot_id|>{head("assistant")}'
    )


def test_a_folder_with_a_template_chats_as_it_says(source, ours, tmp_path):
    """And so does the server; the template is exported. A folder without one is of a model that does not chat."""
    assert dialogue_of(ours.tokenizer) is None
    folder, template = tmp_path / 'instruct', "{{ '<|start_header_id|>' + messages[0]['role'] }}"
    shutil.copytree(source[0], folder)
    (folder / 'chat_template.json').write_text(json.dumps(dict(chat_template=template)))
    config, _, tokenizer, *_ = mllama.convert(str(folder))
    assert dialogue_of(tokenizer) is LLAMA3
    shown = np.asarray(SMALL)
    said = [Message('user', [shown, 'What is it?']), Message('assistant', ['A cat.']), Message('user', ['Sure?'])]
    assert prompt_of(said, tokenizer) == chat([shown, 'What is it?'], 'A cat.', 'Sure?', marks=LLAMA3)
    assert answer_of(['A cat.'], tokenizer) == 'A cat.<|eot_id|>'
    mllama.write_processor(tmp_path, config, tokenizer)
    assert chat_template(tmp_path) == template


@pytest.mark.parametrize('newer', [False, True])
def test_how_images_are_prepared(source, tmp_path, newer):
    """In the folder's own file, or in the processor's, as newer versions of transformers write it."""
    folder, about = tmp_path / 'source', dict(image_mean=[0.1, 0.2, 0.3], size=dict(height=TILE, width=TILE))
    shutil.copytree(source[0], folder)
    name, content = ('processor', dict(image_processor=about)) if newer else ('preprocessor', about)
    (folder / f'{name}_config.json').write_text(json.dumps(content))
    assert mllama.convert(str(folder)).config.vision.mean == (0.1, 0.2, 0.3)
    about |= dict(max_image_tiles=6)
    (folder / f'{name}_config.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match='its images have 6 tiles of 42, not 42'):
        mllama.convert(str(folder))


def test_prompts_begin_with_bos(ours):
    tokens, frames = encode_prompt([SMALL, WIDE, 'w1 w2'], ours.tokenizer, ours.image_format)
    assert tokens == [1, IMG, IMG, 5, 6] and [x.shape for x in frames] == [(1, 42, 42, 3), (1, 42, 126, 3)]
    assert ours.image_format == ImageFormat.of(ours.config, ours.checksums['vision'])


def test_bad_folders_are_named_and_leave_nothing(source, tmp_path):
    folder, state = source
    bad = tmp_path / 'bad'
    shutil.copytree(folder, bad)

    def refuses(match, error=ValueError, state=state, **changed):
        safetensors.numpy.save_file(state, bad / 'model.safetensors')
        (bad / 'config.json').write_text(json.dumps(FIELDS | changed))
        with pytest.raises(error, match=match) as caught:
            write(mllama.convert, str(bad), str(tmp_path / 'out'))
        assert str(bad) in str(caught.value) and sorted(path.name for path in tmp_path.iterdir()) == ['bad']

    text, vision = FIELDS['text_config'], FIELDS['vision_config']
    refuses("model_type 'idefics', not 'mllama'.*Give a folder", model_type='idefics')
    refuses(
        'missing: language_model.model.norm.weight',
        state={name: value for name, value in state.items() if name != 'language_model.model.norm.weight'},
    )
    refuses('unused: vision_model.bias', state=state | {'vision_model.bias': np.zeros(64, np.float32)})
    refuses(
        r'multi_modal_projector.bias has shape \(63,\)',
        state=state | {'multi_modal_projector.bias': np.zeros(63, np.float32)},
    )
    refuses('do not stand at equal distances', text_config=text | dict(cross_attention_layers=[1, 4, 8]))
    refuses('image_token_index is 7', image_token_index=7)
    refuses('vision_output_dim is 193', vision_config=vision | dict(vision_output_dim=193))
    refuses('canvases', vision_config=vision | dict(max_num_tiles=2))
    refuses('numbers of the 5 layers', vision_config=vision | dict(intermediate_layers_indices=[1, 2, 5]))
    for part in ('text_config', 'vision_config'):
        for name in FIELDS[part]:
            for value in ('x', -1, [], {'a': 1}):
                (bad / 'config.json').write_text(json.dumps(FIELDS | {part: FIELDS[part] | {name: value}}))
                try:
                    write(mllama.convert, str(bad), str(tmp_path / 'out'))
                except ValueError as error:
                    assert str(bad) in str(error), name
                else:  # Of no meaning to the weights.
                    shutil.rmtree(tmp_path / 'out')
    (bad / 'preprocessor_config.json').write_text(json.dumps(dict(max_image_tiles=6)))
    refuses('6 tiles of 42')
    (bad / 'preprocessor_config.json').unlink()
    (bad / 'tokenizer.json').unlink()
    refuses('no tokenizer.json', FileNotFoundError)
