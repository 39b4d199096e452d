"""transformers' LLaVA and its conversion: logits, greedy, beams, all kinds of prompts; both ways; bad folders."""

import dataclasses
import json
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

from flamingo_jax.checkpoints import bundle, export
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import llava
from flamingo_jax.conversion.folders import chat_template
from flamingo_jax.conversion.hugging_face import open_tensors
from flamingo_jax.inference import pretrained
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.prompts import VICUNA, chat, dialogue_of, encode_prompt, items
from flamingo_jax.model.bridges.bridge import tags
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.vision.vit import CLIP_MEAN, ViT, ViTConfig
from flamingo_jax.serving.conversation import Message, answer_of, prompt_of
from tests import peers
from tests.golden.make_peers import LLAVA_SEQUENCES, pixels

pytestmark = pytest.mark.usefixtures('quick_compilation')

TOLERANCE = 1e-4  # Relative to the largest logit.
IMG = 94
CASES = {
    'CLIP, LLaMA': dict(published=True),
    'CLIP, Mistral, class token': dict(text='mistral', layer=-1, strategy='full', bias=False),
    'SigLIP, Qwen2': dict(tower='siglip', text='qwen2', layer=-1, strategy='full', tied=True),
}


@pytest.fixture(scope='module', params=CASES)
def both(request, tmp_path_factory):
    """(the original, ours, the folder, the name)."""
    pytest.importorskip('torch')
    pytest.importorskip('transformers')
    folder = tmp_path_factory.mktemp('llava')
    model = peers.llava(folder / 'source', **CASES[request.param])
    write(llava.convert, str(folder / 'source'), str(folder / 'bundle'))
    export.to_llava(str(folder / 'bundle'), str(folder / 'exported'))
    return model, pretrained.load(folder / 'bundle'), folder, f'LLaVA: {request.param}'


def places(ids: list[int], r: int) -> list[int]:
    """With each image's token as often as it has features."""
    return [i for token in ids for i in [token] * (r if token == IMG else 1)]


SEQUENCES = {
    'one image': [[1, 5, IMG, 5, 6, 7, 8]],
    'images side by side': [[1, IMG, IMG, 5, 6, IMG, 7, 8, 9]],
    'different numbers of images': [[1, IMG, 5, 6, IMG, 7, 8], [1, 4, IMG, *range(15, 29)]],
}


@pytest.mark.parity
@pytest.mark.parametrize('case', SEQUENCES)
def test_logits(both, case, record_property):
    import torch

    model, ours, _, row = both
    r = ours.config.media_tokens
    rows = [places(ids, r) for ids in SEQUENCES[case]]
    length = max(map(len, rows))
    ids = np.array([row + [0] * (length - len(row)) for row in rows], np.int32)
    count = (ids == IMG).sum(1) // r
    images = peers.random_images(len(ids), int(count.max()))
    shown = np.concatenate([row[:n, 0] for row, n in zip(images, count, strict=True)])
    with torch.no_grad():
        pixels = peers.standardised(shown, ours.config.vision)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        expected = model(input_ids=torch.tensor(ids).long(), attention_mask=mask, pixel_values=pixels).logits.numpy()
    got = np.asarray(ours.logits(images, ids))
    used = np.asarray(mask, bool)
    difference = float(np.abs(got - expected)[used].max() / np.abs(expected).max())
    print(f'{case}: largest difference {difference:.1e}')
    assert difference < TOLERANCE
    blind = np.asarray(ours.logits(255 - images, ids))
    assert np.abs(blind - got)[used].max() > 100 * TOLERANCE * np.abs(expected).max()
    record_property('row', row)
    record_property('difference', difference)


def prompts():
    """Prompts as a user writes them, and as the original's processor takes them; they differ in length and images."""
    rng = np.random.default_rng(5)
    a, b, c = (
        PIL.Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8))
        for shape in ((60, 42, 3), (30, 50, 3), (42, 42, 3))
    )
    found = [
        ['w1 w2 ', a, ' w3 ', b, c, ' w4 w5'],
        [b, '\nw6 w7 w8'],
        ['w9 w10 ', c, ' w11 w12'],
        ['w13 w14 w15 w16'],
    ]
    texts = [''.join(item if isinstance(item, str) else '<image>' for item in prompt) for prompt in found]
    return found, texts, [item for prompt in found for item in prompt if not isinstance(item, str)]


@pytest.mark.parity
@pytest.mark.parametrize('beams', [1, 3])
def test_generation(both, beams, record_property):
    """Through the processor that transformers opens in the exported folder."""
    import torch
    import transformers

    model, ours, folder, row = both
    record_property('row', row)
    record_property('equal', 'beams' if beams > 1 else 'greedy')
    given, texts, images = prompts()
    processor = transformers.AutoProcessor.from_pretrained(folder / 'exported', backend='pil')
    assert type(processor).__name__ == 'LlavaProcessor'
    x = processor(text=texts, images=images, return_tensors='pt', padding=True)
    shown = []
    for prompt, ids, mask in zip(given, x['input_ids'], x['attention_mask'], strict=True):
        tokens, frames = encode_prompt(prompt, ours.tokenizer, ours.image_format)
        assert ids[mask.bool()].tolist() == tokens
        shown += [peers.standardised(image[0], ours.config.vision).numpy() for image in frames]
    np.testing.assert_allclose(x['pixel_values'].numpy(), np.stack(shown), atol=1e-5)
    with torch.no_grad():
        how = dict(num_beams=beams, length_penalty=0.0, suppress_tokens=list(ours.banned), do_sample=False)
        out = model.generate(**x, max_new_tokens=12, eos_token_id=2, pad_token_id=0, **how)
    expected = []
    for ids in out[:, x['input_ids'].shape[1] :].tolist():
        end = ids.index(2) if 2 in ids else len(ids)
        expected.append(ours.tokenizer.decode(ids[:end]).strip())
    got = ours.generate(given, max_new_tokens=12, num_beams=beams)
    assert got == expected
    assert len(set(got)) > 1
    assert got == [ours.generate(prompt, max_new_tokens=12, num_beams=beams) for prompt in given]


@pytest.mark.parity
def test_a_dialogue_is_written_as_by_the_original(both, record_property):
    import transformers

    _, ours, folder, row = both
    record_property('row', row)
    a, b = (PIL.Image.fromarray(image[0]) for image in peers.random_images(1, 2)[0])
    turns = ([a, b, 'w1 w2'], 'w3', ['w4 w5'])
    assert dialogue_of(ours.tokenizer) is VICUNA
    prompt = chat(*turns, system='w6', marks=VICUNA)
    processor = transformers.AutoProcessor.from_pretrained(folder / 'exported', backend='pil')
    messages = [dict(role='system', content=[dict(type='text', text='w6')])]
    for role, turn in zip(('user', 'assistant', 'user'), turns, strict=True):
        parts = [dict(type='text', text=one) if isinstance(one, str) else dict(type='image') for one in items(turn)]
        messages.append(dict(role=role, content=parts))
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert ''.join(item if isinstance(item, str) else '<image>' for item in prompt) == text
    tokens, _ = encode_prompt(prompt, ours.tokenizer, ours.image_format)
    assert processor(text=[text], images=[a, b])['input_ids'][0] == tokens


@pytest.mark.parity
def test_export_is_the_folder_again(both, record_property):
    import transformers

    model, ours, folder, row = both
    record_property('row', row)
    record_property('equal', 'export')
    before = {llava._published(name): tensor for name, tensor in open_tensors(folder / 'source').items()}
    before = {
        name: tensor for name, tensor in before.items() if '.head.' not in name
    }  # A SigLIP's, which nothing uses.
    after = open_tensors(folder / 'exported')
    assert set(before) == set(after)
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    again = transformers.AutoModelForImageTextToText.from_pretrained(folder / 'exported')
    assert type(again).__name__ == 'LlavaForConditionalGeneration'
    theirs = dict(again.named_parameters())
    for name, value in model.named_parameters():
        if '.head.' not in name:
            np.testing.assert_array_equal(theirs[name].detach().numpy(), value.detach().numpy(), err_msg=name)
    write(llava.convert, str(folder / 'exported'), str(folder / 'again'))
    assert bundle.read(folder / 'again').checksums == ours.checksums
    assert json.loads((folder / 'again' / 'config.json').read_text())['model'] == ours.config.to_json()


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """(folder, tensors, bundle) of the LLaVA in tests/golden/peers.npz."""
    folder = tmp_path_factory.mktemp('golden')
    state = peers.write_golden(folder / 'llava', 'llava')
    write(llava.convert, str(folder / 'llava'), str(folder / 'bundle'))
    return folder / 'llava', state, folder / 'bundle'


def test_it_says_what_the_original_said(source):
    config, params, *_ = llava.convert(str(source[0]))
    golden, model, params = peers.golden(), Flamingo(config), jax.tree.map(jnp.asarray, params)
    images, ids = pixels(), np.array(LLAVA_SEQUENCES, np.int32)
    logits = np.asarray(jax.jit(model.logits)(params, images, ids))
    expected = golden['llava_logits']
    assert np.abs(logits - expected).max() < TOLERANCE * np.abs(expected).max()
    for name, beams in (('greedy', 1), ('beams', 3)):
        got = peers.answers(model, params, images, ids, beams, [2], (0, 1, IMG))
        np.testing.assert_array_equal(got, golden[f'llava_{name}'])


def test_prompts_that_begin_alike_are_answered_as_each_alone(source):
    """Their common beginning has images and is read once; the bridge has no parameters."""
    ours = pretrained.load(source[2])
    assert 'xattn' not in ours.params and IMG in ours.banned
    a, b, c, d = peers.random_images(1, 4)[0, :, 0]
    examples = [a, ' w1 w2 w3', b, ' w4 w5 w6', c, ' w7 w8 w9 ']
    given = [[*examples, image, ' w1 w2'] for image in (d, a, b)]
    got = ours.generate(given, max_new_tokens=6)
    assert len(ours.reader.beginnings._kept) == 1
    alone = pretrained.load(source[2])
    assert got == [alone.generate(prompt, max_new_tokens=6) for prompt in given]
    assert len(set(got)) > 1
    tokens, frames = encode_prompt(given[0], ours.tokenizer, ours.image_format)
    logits = ours.logits(np.stack(frames)[None], np.array([tokens]))[0, -1]
    first = np.asarray(jnp.where(jnp.isin(jnp.arange(logits.size), np.array(ours.banned)), -np.inf, logits)).argmax()
    assert got[0].startswith(ours.tokenizer.decode([first]))


def test_the_command_and_its_inverse(source, tmp_path):
    folder, state, made = source
    export.to_llava(str(made), str(tmp_path / 'again'))
    again, before = open_tensors(tmp_path / 'again'), {llava._published(name): value for name, value in state.items()}
    assert set(again) == set(before) and 'vision_tower.vision_model.encoder.layers.2.mlp.fc1.bias' in before
    for name, value in before.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    write(llava.convert, str(tmp_path / 'again'), str(tmp_path / 'bundle'))
    assert bundle.read(tmp_path / 'bundle').checksums == bundle.read(made).checksums
    assert bundle.read(tmp_path / 'bundle').config == bundle.read(made).config
    tokenizer = bundle.read(tmp_path / 'bundle').tokenizer()
    assert (tokenizer.image_tag, tokenizer.extra_tokens, tokenizer.eoc) == ((IMG,) * 9, (), None)
    images, processor, roles = (
        json.loads((tmp_path / 'again' / name).read_text())
        for name in ('preprocessor_config.json', 'processor_config.json', 'generation_config.json')
    )
    assert images['crop_size'] == dict(height=42, width=42) and tuple(images['image_mean']) == CLIP_MEAN
    places = (processor['patch_size'], processor['vision_feature_select_strategy'])
    assert (*places, processor['num_additional_image_tokens']) == (14, 'default', 1)
    assert roles == dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    with pytest.raises(ValueError, match='cannot be written as an IDEFICS'):
        export.to_idefics(str(made), str(tmp_path / 'x'))


def test_a_model_that_is_no_llava_is_not_exported(source):
    config = llava.convert(str(source[0])).config
    gated = dataclasses.replace(config, xattn=config.xattn.as_kind('gated_prefix'))
    with pytest.raises(ValueError, match="as a LLaVA: xattn.kind = 'gated_prefix', not 'prefix'"):
        llava.fields_of(gated)
    with pytest.raises(ValueError, match='as a LLaVA: resampler.width = 80, not 64'):
        llava.fields_of(dataclasses.replace(config, resampler=dataclasses.replace(config.resampler, width=80)))
    with pytest.raises(ValueError, match='as a LLaVA: its language model is no llama, mistral, qwen2'):
        llava.fields_of(dataclasses.replace(config, lm=dataclasses.replace(config.lm, positions='learned')))
    with pytest.raises(ValueError, match='as a LLaVA: that has a vision transformer whose images are cropped'):
        llava.fields_of(dataclasses.replace(config, vision=dataclasses.replace(config.vision, fit='pad')))


def test_an_image_is_its_token_as_often_as_it_has_features(source):
    config, _, tokenizer, *_ = llava.convert(str(source[0]))
    a, b = peers.random_images(1, 2)[0, :, 0]
    tokens, frames = encode_prompt(['w1 ', a, b, ' w2'], tokenizer, ImageFormat(42, config.vision.fit))
    assert tokens == [1, *tokenizer.encode('w1 '), *[IMG] * 18, *tokenizer.encode(' w2')] and len(frames) == 2
    phi = np.asarray(Flamingo(config).phi(jnp.array([tokens])))[0]
    assert phi.tolist() == [0, 0, *[1] * 9, *[2] * 9, 0]
    with pytest.raises(ValueError, match='contains the tag <image>'):
        encode_prompt(['w1 <image>'], tokenizer, ImageFormat(42))


def test_a_folder_with_a_template_chats_as_it_says(source, tmp_path):
    assert dialogue_of(bundle.read(source[2]).tokenizer()) is None
    folder = tmp_path / 'llava'
    shutil.copytree(source[0], folder)
    (folder / 'tokenizer_config.json').write_text(json.dumps(dict(chat_template=peers.VICUNA_TEMPLATE)))
    config, _, tokenizer, *_ = llava.convert(str(folder))
    a, b = peers.random_images(1, 2)[0, :, 0]
    assert dialogue_of(tokenizer) is VICUNA
    said = [Message('system', ['Be short.']), Message('user', ['Who?', a, b]), Message('assistant', ['Ann.'])]
    prompt = chat(['Who?', a, b], 'Ann.', 'Why? <image>', system='Be short.', marks=VICUNA)
    served = prompt_of([*said, Message('user', ['Why? <image>'])], tokenizer)
    assert [(item if isinstance(item, str) else id(item)) for item in served] == [
        (item if isinstance(item, str) else id(item)) for item in prompt
    ]
    assert prompt_of(said, tokenizer, open_end=False)[-1] == '\nWho? ASSISTANT: Ann. '
    assert answer_of(['Ann.'], tokenizer) == ' Ann.</s>'  # As the model ends it; so candidates are ranked.
    assert tokenizer.encode('</s>', continues=True) == [tokenizer.eos]
    assert [item for item in prompt if isinstance(item, str)] == [
        'Be short. USER: ',
        '\n',
        '\nWho? ASSISTANT: Ann. USER: \ue000Why? <image>\ue000 ASSISTANT:',
    ]
    assert prompt[1] is a and prompt[3] is b
    llava.write_processor(tmp_path, config, tokenizer)
    assert (tmp_path / 'chat_template.jinja').read_text() == peers.VICUNA_TEMPLATE == chat_template(tmp_path)


def test_a_tag_that_is_cut_is_none():
    texts = [[7, 7, 7, 7, 7, 7, 1, 7], [7, 7, 1, 7, 7, 7, 7, 7], [1, 2, 3, 4, 5, 6, 7, 7]]
    begins = [[1, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0], [0] * 8]
    np.testing.assert_array_equal(tags(jnp.array(texts), (7, 7, 7)), begins)


def test_the_features_of_a_layer_are_those_of_a_trunk_that_ends_there():
    whole = ViTConfig(width=16, depth=3, heads=2, ffw_width=24, patch=4, resolution=12, unused=1)
    shorter = dataclasses.replace(whole, depth=2, unused=0)
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3)).astype(np.uint8)
    variables = nn.meta.unbox(jax.jit(ViT(whole).init)(jax.random.key(0), images))
    used = {name: tree for name, tree in variables['params'].items() if name != 'unused_layers'}
    found = jax.jit(ViT(whole).apply)(variables, images)
    np.testing.assert_array_equal(found, jax.jit(ViT(shorter).apply)({'params': used}, images))
    assert whole.operations(12) == shorter.operations(12)
    with pytest.raises(ValueError, match='cannot leave out 4'):
        dataclasses.replace(whole, unused=4)


PUBLISHED = {
    # Of llava-hf's config.json: (its text_config, vision_config and the rest; parameters).
    'llava-1.5-7b-hf': (
        dict(model_type='llama', max_position_embeddings=4096, rms_norm_eps=1e-5, vocab_size=32_064),
        dict(model_type='clip_vision_model', hidden_size=1024, intermediate_size=4096, image_size=336, patch_size=14)
        | dict(num_attention_heads=16, num_hidden_layers=24, projection_dim=768, vocab_size=32_000),
        dict(vision_feature_layer=-2, vision_feature_select_strategy='default', projector_hidden_act='gelu'),
        7_063_427_072,
    ),
    'llava-1.5-13b-hf': (
        dict(model_type='llama', max_position_embeddings=4096, rms_norm_eps=1e-5, vocab_size=32_064)
        | dict(hidden_size=5120, intermediate_size=13_824, num_attention_heads=40, num_hidden_layers=40)
        | dict(num_key_value_heads=40),
        dict(model_type='clip_vision_model', hidden_size=1024, intermediate_size=4096, image_size=336, patch_size=14)
        | dict(num_attention_heads=16, num_hidden_layers=24, projection_dim=768, vocab_size=32_000),
        dict(vision_feature_layer=-2, vision_feature_select_strategy='default', projector_hidden_act='gelu'),
        13_351_494_656,
    ),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_configs(name):
    text, vision, rest, parameters = PUBLISHED[name]
    fields = dict(model_type='llava', image_token_index=32_000, text_config=text, vision_config=vision) | rest
    config = llava.config_of(fields, {})
    assert config.image_tag == (32_000,) * 576 and config.vision.fit == 'crop' and config.vision.mean == CLIP_MEAN
    shapes = {tensor.name: tensor.shape for tensor in llava.tensors_of(config)}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters
    assert llava.config_of(llava.fields_of(config), {}) == config


def test_bad_folders_are_named_and_leave_nothing(source, tmp_path):
    folder, state, _ = source
    bad = tmp_path / 'bad'
    shutil.copytree(folder, bad)
    fields = json.loads((bad / 'config.json').read_text())
    text, vision = fields['text_config'], fields['vision_config']

    def refuses(match, error=ValueError, state=state, images=None, **changed):
        safetensors.numpy.save_file(state, bad / 'model.safetensors')
        (bad / 'config.json').write_text(json.dumps(fields | changed))
        (bad / 'preprocessor_config.json').write_text(json.dumps(images or {}))
        with pytest.raises(error, match=match) as caught:
            write(llava.convert, str(bad), str(tmp_path / 'out'))
        assert str(bad) in str(caught.value) and sorted(path.name for path in tmp_path.iterdir()) == ['bad']

    refuses("model_type 'llama', not 'llava'.*Give a folder", model_type='llama')
    without = {name: value for name, value in state.items() if name != 'lm_head.weight'}
    refuses('missing: language_model.lm_head.weight', state=without)
    refuses('unused: multi_modal_projector.linear_1.bias', multimodal_projector_bias=False)
    refuses('unused: x', state=state | {'x': np.zeros(3, np.float32)})
    refuses("is a 'gpt2', not one of llama", text_config=text | dict(model_type='gpt2'))
    refuses("is a 'vit', not a clip", vision_config=vision | dict(model_type='vit'))
    refuses(r'vision_feature_layer is \[-2, -5\], but one layer', vision_feature_layer=[-2, -5])
    refuses('vision_feature_layer is -5', vision_feature_layer=-5)
    refuses("strategy 'full2'", vision_feature_select_strategy='full2')
    siglip = vision | dict(model_type='siglip_vision_model')
    refuses("strategy 'default' is not supported with a siglip", vision_config=siglip)
    refuses('image_token_index is 93, but in its tokenizer.json that is not <image>', image_token_index=93)
    refuses('image_token_index is 200, but its language model has 100', image_token_index=200)
    refuses('padded to squares', images=dict(do_pad=True))
    refuses(r'sides of \[224\]', images=dict(size=dict(shortest_edge=224)))
    for name in set(fields) - {'architectures', 'dtype', 'image_seq_length', 'transformers_version'}:
        for value in ('x', -1, [], {'a': 1}):
            (bad / 'config.json').write_text(json.dumps(fields | {name: value}))
            (bad / 'preprocessor_config.json').write_text('{}')
            try:
                write(llava.convert, str(bad), str(tmp_path / 'out'))
            except ValueError as error:
                assert str(bad) in str(error)
            else:  # Such as a bias that is 'x'.
                shutil.rmtree(tmp_path / 'out')
    (bad / 'config.json').write_text(json.dumps(fields))
    (bad / 'tokenizer.json').unlink()
    refuses('no tokenizer.json', FileNotFoundError)
