"""Idefics 3 and SmolVLM of transformers, and their conversion both ways: logits, answers, prompts, pixels, errors."""

import dataclasses
import json
import shutil

import flax.linen as nn
import jax
import numpy as np
import PIL.Image
import pytest
import tokenizers

from flamingo_jax.checkpoints import bundle, export
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import idefics3
from flamingo_jax.conversion.hugging_face import open_tensors
from flamingo_jax.inference import pretrained
from flamingo_jax.inputs.prompts import dialogue_of, encode, encode_prompt
from flamingo_jax.inputs.splitting import Splitting
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.flamingo import Flamingo
from tests import peers

pytestmark = pytest.mark.usefixtures('quick_compilation')

TOLERANCE = 1e-4  # Relative to the largest logit.
IMG, R, SIDE = 94, 4, 43
CASES = {
    'Idefics 3, marks of several tokens': dict(marks=False),
    'SmolVLM, tied': dict(kind='smolvlm', tied=True),
    'SmolVLM, not split': dict(kind='smolvlm', split=False),
}


@pytest.fixture(scope='module', params=CASES)
def both(request, tmp_path_factory):
    """(the original, ours, the folder, the original's processor of the exported folder)."""
    pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    folder = tmp_path_factory.mktemp('idefics3')
    model = peers.idefics3(folder / 'source', **CASES[request.param])
    write(idefics3.convert, str(folder / 'source'), str(folder / 'bundle'))
    export.to_idefics3(str(folder / 'bundle'), str(folder / 'exported'))
    processor = transformers.AutoProcessor.from_pretrained(folder / 'exported', backend='pil')
    assert type(processor).__name__ == 'Idefics3Processor'
    return model, pretrained.load(folder / 'bundle'), folder, processor


def image(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    rng = np.random.default_rng([seed, width, height])
    return PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))


# Wider, taller, smaller than a tile, and square.
WIDE, TALL, SMALL, SQUARE = image(130, 40), image(50, 160), image(20, 17), image(90, 90)
PROMPTS = {
    'one wide image': [WIDE, 'w1 w2 w3'],
    'images side by side, and apart': ['w4 w5 ', SMALL, TALL, ' w6\n', WIDE, '\n\nw7 w8'],
    'a square image at the end': ['w9 w1', SQUARE],
    'text alone': ['w9 w1 w2'],
}


def prepared(processor, prompt):
    """What the original takes of a prompt."""
    text = ''.join(x if isinstance(x, str) else '<image>' for x in prompt)
    images = [x for x in prompt if not isinstance(x, str)]
    return processor(text=[text], images=[images] if images else None, return_tensors='pt')


@pytest.mark.parity
@pytest.mark.parametrize('case', PROMPTS)
def test_logits_pixels_and_tokens(both, case, record_property):
    import torch

    model, ours, _, processor = both
    x = prepared(processor, PROMPTS[case])
    tokens, frames = encode_prompt(PROMPTS[case], ours.tokenizer, ours.image_format)
    assert x['input_ids'][0].tolist() == tokens
    images = np.stack(frames)[None] if frames else None
    if frames:
        pixels = peers.standardised(np.concatenate(frames), ours.config.vision).numpy()
        np.testing.assert_allclose(x['pixel_values'][0].numpy(), pixels, atol=1e-5)
        assert x['pixel_attention_mask'].all()
    with torch.no_grad():
        expected = model(**x).logits.numpy()
    got = np.asarray(ours.logits(images, np.array([tokens])))
    difference = float(np.abs(got - expected).max() / np.abs(expected).max())
    print(f'{case}: largest difference {difference:.1e}')
    assert difference < TOLERANCE
    if frames:
        blind = np.asarray(ours.logits(255 - images, np.array([tokens])))
        assert np.abs(blind - got).max() > 100 * TOLERANCE * np.abs(expected).max()
    record_property('row', 'Idefics 3, SmolVLM')
    record_property('difference', difference)


@pytest.mark.parity
@pytest.mark.parametrize('beams', [1, 3])
def test_answers(both, beams):
    import torch

    model, ours, _, processor = both
    prompts, expected = list(PROMPTS.values()), []
    for prompt in prompts:
        x = prepared(processor, prompt)
        how = dict(num_beams=beams, length_penalty=0.0, suppress_tokens=list(ours.banned), do_sample=False)
        with torch.no_grad():
            out = model.generate(**x, max_new_tokens=12, eos_token_id=2, pad_token_id=0, **how)
        ids = out[0, x['input_ids'].shape[1] :].tolist()
        expected.append(ours.tokenizer.decode(ids[: ids.index(2) if 2 in ids else None]).strip())
    got = ours.generate(prompts, max_new_tokens=12, num_beams=beams)
    assert got == expected and len(set(got)) > 1
    assert got == [ours.generate(prompt, max_new_tokens=12, num_beams=beams) for prompt in prompts]


SHAPES = [(w, h) for w in (1, 20, 42, 43, 44, 86, 129, 130, 300) for h in (1, 30, 43, 87, 128, 200)]


@pytest.mark.parity
@pytest.mark.parametrize('longest', [20, 43, 44, 129, 200])
@pytest.mark.parametrize('split', [True, False])
def test_tiles_of_all_shapes(longest, split):
    transformers = pytest.importorskip('transformers')
    ours, size = Splitting(SIDE, longest, split), dict(longest_edge=longest)
    theirs = transformers.Idefics3ImageProcessorPil(
        size=size,
        max_image_size=dict(longest_edge=SIDE),
        do_image_splitting=split,
        do_rescale=False,
        do_normalize=False,
    )
    for width, height in SHAPES:
        one = image(width, height)
        x = theirs(images=[[one]], return_row_col_info=True, return_tensors='np')
        assert ours.grid(width, height) == (x['rows'][0][0], x['cols'][0][0]), (width, height)
        expected = np.moveaxis(x['pixel_values'][0], 1, -1)
        np.testing.assert_array_equal(ours.tiles(one), expected, err_msg=f'{width} x {height}')


@pytest.mark.parity
def test_export_is_the_folder_again(both):
    import transformers

    model, ours, folder, _ = both
    before, after = open_tensors(folder / 'source'), open_tensors(folder / 'exported')
    assert set(before) == set(after)
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    again = transformers.AutoModelForImageTextToText.from_pretrained(folder / 'exported')
    assert type(again).__name__ == 'Idefics3ForConditionalGeneration'
    theirs = dict(again.named_parameters())
    for name, value in model.named_parameters():
        np.testing.assert_array_equal(theirs[name].detach().numpy(), value.detach().numpy(), err_msg=name)
    write(idefics3.convert, str(folder / 'exported'), str(folder / 'again'))
    assert bundle.read(folder / 'again').checksums == ours.checksums
    assert bundle.read(folder / 'again').config == ours.config


# ---- Without the original


FIELDS = dict(
    model_type='smolvlm',
    image_token_id=8,
    scale_factor=3,
    tie_word_embeddings=True,
    text_config=dict(model_type='llama', vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    | dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512),
    vision_config=dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3)
    | dict(image_size=SIDE, patch_size=7),
)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """(the folder of a random SmolVLM, its bundle)."""
    folder = tmp_path_factory.mktemp('smolvlm')
    config = idefics3.config_of(FIELDS, {})
    names = ['<pad>', '<s>', '</s>', '<unk>', '\n', '\n\n', ' ', '<fake_token_around_image>', '<image>', '<global-img>']
    names += [f'<row_{row}_col_{column}>' for row in (1, 2, 3, 4) for column in (1, 2, 3, 4)] + ['w1', 'w2', 'w3']
    pieces = tokenizers.Tokenizer(tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, '<unk>'))
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r'\n+|w\d| '), 'isolated')
    pieces.add_special_tokens([name for name in names if name[0] == '<'])
    roles = dict(bos=1, eos=[2], pad=0, splitting=dataclasses.asdict(Splitting(SIDE, 4 * SIDE)))
    content = json.dumps(dict(roles=roles) | json.loads(pieces.to_str())).encode()
    params = nn.meta.unbox(jax.jit(Flamingo(config).init)(jax.random.key(0)))
    tokenizer = Tokenizer(content, config.image_tag, config.lm.vocab_size)
    bundle.save(folder / 'bundle', config, params, tokenizer, config.image_tag, '')
    export.to_idefics3(str(folder / 'bundle'), str(folder / 'folder'))
    return folder / 'folder', folder / 'bundle'


def test_the_command_and_its_inverse(source, tmp_path):
    folder, made = source
    write(idefics3.convert, str(folder), str(tmp_path / 'again'))
    before, after = bundle.read(made), bundle.read(tmp_path / 'again')
    assert (after.config, after.checksums) == (before.config, before.checksums)
    assert after.tokenizer().splitting == Splitting(SIDE, 4 * SIDE)
    images = json.loads((folder / 'preprocessor_config.json').read_text())
    assert images['size'] == dict(longest_edge=4 * SIDE) and images['max_image_size'] == dict(longest_edge=SIDE)
    with pytest.raises(ValueError, match='cannot be written as an IDEFICS'):
        export.to_idefics(str(made), str(tmp_path / 'x'))
    gated = dataclasses.replace(before.config, xattn=before.config.xattn.as_kind('gated_prefix'))
    with pytest.raises(ValueError, match='as an Idefics 3'):
        idefics3.fields_of(gated)


def test_an_image_is_its_tiles_and_the_whole(source):
    ours = pretrained.load(source[1])
    tokens, frames = encode_prompt([WIDE, 'w1'], ours.tokenizer, ours.image_format)
    rows, columns = ours.tokenizer.splitting.grid(*WIDE.size)
    assert (rows, columns) == (2, 4) and len(frames) == rows * columns + 1
    written = ours.tokenizer.decode(tokens)
    assert tokens.count(8) == R * len(frames) and written.endswith('w1')
    assert dialogue_of(ours.tokenizer) is None
    answers = [ours.generate(prompt, max_new_tokens=4) for prompt in ([WIDE, 'w1'], [TALL, 'w2', SMALL])]
    assert ours.generate([[WIDE, 'w1'], [TALL, 'w2', SMALL]], max_new_tokens=4) == answers
    # An image of a file, of bytes and of an array are the same; a frame of a video is not cut.
    array = np.asarray(WIDE)
    assert encode([array, 'w1'], ours.tokenizer).tokens == tokens
    with pytest.raises(ValueError, match='image'):
        encode([b'no image', 'w1'], ours.tokenizer)
    with pytest.raises(ValueError, match='images of one frame, not 2'):
        ours.generate([[SQUARE, SQUARE], 'w1'])


WRONG = {
    'another model': ('config.json', dict(model_type='llava'), "has model_type 'llava'"),
    'another language model': ('config.json', dict(text_config=dict(model_type='mistral')), "is a 'mistral'"),
    'no such token': ('config.json', dict(image_token_id=3000), 'image_token_id is 3000'),
    'another token': ('config.json', dict(image_token_id=5), 'image_token_id is 5, but in its tokenizer.json'),
    'squares that do not fit': ('config.json', dict(scale_factor=4), 'a multiple of its factor 4'),
    'other tiles': ('preprocessor_config.json', dict(max_image_size=dict(longest_edge=50)), 'max_image_size'),
    'a huge image': ('preprocessor_config.json', dict(size=dict(longest_edge=9999)), 'longest_edge of 1 to 4096'),
    'another filter': ('preprocessor_config.json', dict(resample=2), 'another filter than Lanczos'),
}


@pytest.mark.parametrize('case', WRONG)
def test_another_folder_is_refused_by_what_is_wrong(source, tmp_path, case):
    file, change, message = WRONG[case]
    folder = tmp_path / 'folder'
    shutil.copytree(source[0], folder)
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    with pytest.raises(ValueError, match=message) as error:
        idefics3.convert(str(folder))
    assert 'SmolVLM' in str(error.value)  # The remedy.
