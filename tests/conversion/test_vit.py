"""Features of small random CLIPs and SigLIPs, compared with open_clip, transformers and timm."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from flamingo_jax.checkpoints import bundle
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion.tensors import to_state
from flamingo_jax.conversion.trunk import alone
from flamingo_jax.conversion.vit import HEAD_WIDTHS, clip_embedding, read_clip_embedding, read_vit, vit, vit_tensors
from flamingo_jax.evaluation import rices
from flamingo_jax.inputs.images import to_frames
from flamingo_jax.model.vision.clip_embedding import ClipEmbedding, ClipEmbeddingConfig
from flamingo_jax.model.vision.vit import ViT, ViTConfig
from tests.peers import open_clip_model, randomise, standardised

TOLERANCE = 1e-4  # Relative to the largest feature.
CONFIG = ViTConfig(width=48, depth=3, heads=3, ffw_width=192, resolution=42)


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 42, 42, 3)).astype(np.uint8)


def features(config, params, images):
    return np.asarray(jax.jit(lambda p, x: ViT(config).apply({'params': p}, x))(params, images))


def assert_close(ours, theirs, record=lambda name, value: None, row=''):
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f'largest difference {difference:.1e}')
    record('row', row)
    record('difference', float(difference))
    assert difference < TOLERANCE


@pytest.mark.parity
@pytest.mark.parametrize('quick_gelu', [True, False])
@pytest.mark.parametrize('norm_features', [True, False])
@pytest.mark.parametrize('file', ['clip.pt', 'clip.safetensors'])
def test_open_clip(tmp_path, images, quick_gelu, norm_features, file, record_property):
    torch = pytest.importorskip('torch')
    pytest.importorskip('open_clip')
    model = open_clip_model(quick_gelu, final_ln_after_pool=not norm_features)
    if file == 'clip.pt':
        torch.save(model.state_dict(), tmp_path / file)
    else:
        safetensors.numpy.save_file({k: v.numpy() for k, v in model.state_dict().items()}, tmp_path / file)
    config, params = read_vit(str(tmp_path / file), 'clip', 'quick_gelu' if quick_gelu else 'gelu', 3)
    assert dataclasses.replace(config, activation='quick_gelu') == CONFIG
    config = dataclasses.replace(config, norm_features=norm_features)
    with torch.no_grad():
        _, tokens = model.visual(standardised(images, config))
    assert_close(features(config, params, images), tokens, record_property, 'CLIP, open_clip')


@pytest.mark.parity
def test_openais_own_form_a_torchscript_archive(tmp_path, images, record_property):
    """fp16, and with the three numbers by which OpenAI's files are known: nothing else needs to be said."""
    torch = pytest.importorskip('torch')
    pytest.importorskip('open_clip')
    model = open_clip_model(final_ln_after_pool=True)

    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual, self.logit_scale = model.visual.half(), torch.nn.Parameter(torch.zeros(()))
            for name, number in (('input_resolution', 42), ('context_length', 16), ('vocab_size', 64)):
                self.register_buffer(name, torch.tensor(number))

        def forward(self, x):
            return self.visual(x)[0] * self.logit_scale

    torch.jit.save(torch.jit.trace(Whole(), torch.zeros(1, 3, 42, 42).half()), str(tmp_path / 'ViT.pt'))
    config, params = read_vit(str(tmp_path / 'ViT.pt'), 'clip', heads=3)
    assert config == CONFIG and params['patches']['kernel'].dtype == np.float16
    with torch.no_grad():
        _, tokens = model.visual.float()(standardised(images, config))
    assert_close(
        features(config, jax.tree.map(np.float32, params), images), tokens, record_property, "CLIP, OpenAI's own file"
    )


@pytest.mark.parity
def test_another_resolution_as_open_clip(tmp_path, images, record_property):
    torch = pytest.importorskip('torch')
    open_clip = pytest.importorskip('open_clip')
    model, state = open_clip_model(), {}
    torch.save(model.state_dict(), tmp_path / 'clip.pt')
    config, params = read_vit(str(tmp_path / 'clip.pt'), 'clip', 'quick_gelu', 3)
    config = dataclasses.replace(config, norm_features=True)
    for size in (28, 70):
        other = open_clip_model(image_size=size)
        state = dict(model.state_dict())
        open_clip.model.resize_pos_embed(state, other)
        other.load_state_dict(state)
        pixels = np.random.default_rng(1).integers(0, 256, (2, size, size, 3)).astype(np.uint8)
        with torch.no_grad():
            _, tokens = other.visual(standardised(pixels, config))
        assert_close(features(config, params, pixels), tokens, record_property, 'CLIP at another resolution, open_clip')


@pytest.mark.parity
@pytest.mark.parametrize('activation', ['quick_gelu', 'gelu'])
@pytest.mark.parametrize('whole', [True, False])
def test_transformers_clip(tmp_path, images, activation, whole, record_property):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    vision = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=100, patch_size=14)
    vision |= dict(image_size=42, hidden_act=activation)
    if whole:
        text = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=64)
        fields = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)
        model = randomise(transformers.CLIPModel(fields))
    else:
        model = randomise(transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**vision)))
    model.save_pretrained(tmp_path / 'clip', max_shard_size='60KB')
    config, params = read_vit(str(tmp_path / 'clip'), 'clip')
    config = dataclasses.replace(config, class_feature=True)
    assert config.activation == activation and config.heads == 4 and config.ffw_width == 100
    with torch.no_grad():
        vision_model = model.vision_model if hasattr(model, 'vision_model') else model
        tokens = vision_model(standardised(images, config)).last_hidden_state
    assert_close(features(config, params, images), tokens, record_property, 'CLIP, transformers')


@pytest.mark.parity
@pytest.mark.parametrize('source', ['transformers', 'open_clip'])
def test_embeddings_of_a_clip(tmp_path, images, source, record_property):
    """The vectors of whole images, by which OpenFlamingo's RICES compares."""
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    if source == 'open_clip':
        pytest.importorskip('open_clip')
        model = open_clip_model(final_ln_after_pool=True)
        model.visual.output_tokens = False
        torch.save(model.state_dict(), tmp_path / 'clip')
        embed, how = model.encode_image, ('quick_gelu', 3)
    else:
        vision = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=100, patch_size=14)
        text = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=64)
        fields = dict(vision_config=vision | dict(image_size=42), text_config=text, projection_dim=24)
        model = randomise(transformers.CLIPModel(transformers.CLIPConfig(**fields)))
        model.save_pretrained(tmp_path / 'clip', max_shard_size='60KB')
        how = ()

        def embed(pixels):
            return model.visual_projection(model.vision_model(pixels).pooler_output)

    config, params = read_clip_embedding(str(tmp_path / 'clip'), *how)
    with torch.no_grad():
        theirs = embed(standardised(images, config.tower)).numpy()
    ours = jax.jit(lambda p, x: ClipEmbedding(config).apply({'params': p}, x))(params, images)
    assert_close(np.asarray(ours)[:, 0], theirs, record_property, f'CLIP with its projection, {source}')


@pytest.mark.parity
def test_transformers_siglip(tmp_path, images, record_property):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    vision = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=100, patch_size=16)
    text = dict(hidden_size=48, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=64)
    fields = transformers.SiglipConfig(vision_config=vision | dict(image_size=42), text_config=text)
    model = randomise(transformers.SiglipModel(fields))
    model.save_pretrained(tmp_path / 'siglip')
    config, params = read_vit(str(tmp_path / 'siglip'), 'siglip')
    with torch.no_grad():  # 42 is no multiple of 16: the last pixels are left out.
        tokens = model.vision_model(standardised(images, config)).last_hidden_state
    assert_close(features(config, params, images), tokens, record_property, 'SigLIP, transformers')


@pytest.mark.parity
def test_a_file_has_the_heads_of_timms_models():
    """A state dict does not give them."""
    timm, torch = pytest.importorskip('timm'), pytest.importorskip('torch')
    names = [name for pattern in ('vit_*clip*', 'vit_*siglip*') for name in timm.list_models(pattern)]
    assert len(names) > 30
    for name in names:
        with torch.device('meta'):
            model = timm.create_model(name)
        width = model.embed_dim
        assert width // HEAD_WIDTHS.get(width, 64) == model.blocks[0].attn.num_heads, name


@pytest.mark.parity
@pytest.mark.parametrize('kind, activation', [('clip', 'quick_gelu'), ('siglip', 'gelu_tanh'), ('siglip', 'gelu')])
def test_timm(tmp_path, images, kind, activation, record_property):
    torch = pytest.importorskip('torch')
    timm = pytest.importorskip('timm')
    siglip = kind == 'siglip'
    shape = dict(img_size=42, patch_size=14, embed_dim=48, depth=3, num_heads=3, num_classes=0)
    if siglip:
        model = timm.models.VisionTransformer(**shape, class_token=False, global_pool='map', act_layer=activation)
    else:
        model = timm.models.VisionTransformer(
            **shape, pre_norm=True, norm_layer=torch.nn.LayerNorm, act_layer='quick_gelu'
        )
    torch.save(randomise(model).state_dict(), tmp_path / 'vit.pth')
    config, params = read_vit(str(tmp_path / 'vit.pth'), kind, '' if activation == 'gelu_tanh' else activation, 3)
    config = dataclasses.replace(config, norm_features=True, class_feature=not siglip)
    with torch.no_grad():
        tokens = model.forward_features(standardised(images, config))
    assert_close(features(config, params, images), tokens, record_property, f'{"SigLIP" if siglip else "CLIP"}, timm')


@pytest.mark.parity
def test_images_are_prepared_as_by_the_originals(record_property):
    record_property('row', 'images, as prepared by open_clip and transformers')
    transform = pytest.importorskip('open_clip.transform')
    PIL = pytest.importorskip('PIL.Image')
    transformers = pytest.importorskip('transformers')
    rng = np.random.default_rng(0)
    siglip = transformers.SiglipImageProcessorPil(size=dict(height=42, width=42), resample=3)
    for shape in ((61, 130, 3), (200, 57, 3), (42, 42, 3), (20, 31, 3)):
        image = PIL.fromarray(rng.integers(0, 256, shape).astype(np.uint8))
        config = CONFIG
        theirs = transform.image_transform(42, is_train=False, mean=config.mean, std=config.std)(image).numpy()
        ours = standardised(to_frames(image, 42, config.fit), config)[0].numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        theirs = siglip(image, return_tensors='np')['pixel_values'][0]
        ours = to_frames(image, 42, 'squash')[0].transpose(2, 0, 1) / np.float32(127.5) - 1
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.fixture(scope='module')
def params():
    images = np.zeros((1, 42, 42, 3), np.uint8)
    params = jax.jit(ViT(CONFIG).init)(jax.random.key(0), images)['params']
    return jax.tree.map(np.asarray, jax.tree.map(lambda box: box.value, params, is_leaf=lambda x: hasattr(x, 'value')))


@pytest.mark.parametrize(
    'spelling, prefix', [('open_clip', 'visual.'), ('transformers', 'vision_model.'), ('timm', '')]
)
def test_every_spelling_converts_both_ways(tmp_path, params, spelling, prefix):
    state = to_state(vit_tensors(CONFIG, spelling, prefix), params)
    safetensors.numpy.save_file(state, tmp_path / 'vit.safetensors')
    config, read = read_vit(str(tmp_path / 'vit.safetensors'), 'clip', 'quick_gelu', 3)
    assert config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, read, params)


def test_the_command_writes_a_bundle(tmp_path, params):
    file, out = tmp_path / 'clip.safetensors', tmp_path / 'bundle'
    state = to_state(vit_tensors(CONFIG, 'open_clip', 'visual.'), params)
    safetensors.numpy.save_file(state | {'logit_scale': np.zeros(())}, file)
    how = dict(activation='quick_gelu', heads=3)
    write(alone(functools.partial(vit, 'clip')), str(file), str(out), **how, norm_features=True, image_size=70)
    read = bundle.read(out)
    assert read.config.vision == dataclasses.replace(CONFIG, norm_features=True) and read.config.image_size == 70
    jax.tree.map(np.testing.assert_array_equal, read.params('vision')['trunk'], params)


@pytest.mark.parametrize('spelling, prefix', [('open_clip', 'visual.'), ('transformers', 'vision_model.')])
def test_a_clip_with_its_projection_is_a_bundle(tmp_path, params, images, spelling, prefix):
    projection = np.random.default_rng(1).normal(size=(48, 24)).astype(np.float32)
    state = to_state(vit_tensors(CONFIG, spelling, prefix), params)
    file = tmp_path / 'clip.safetensors'
    safetensors.numpy.save_file(state, file)
    with pytest.raises(ValueError, match='has no projection .* Give a whole CLIP'):
        clip_embedding(str(file), 'quick_gelu', 3)
    theirs = dict(open_clip=('visual.proj', projection), transformers=('visual_projection.weight', projection.T.copy()))
    safetensors.numpy.save_file(state | dict([theirs[spelling]]), file)
    how = dict(activation='quick_gelu', heads=3)
    write(alone(clip_embedding), str(file), str(tmp_path / 'bundle'), **how)
    clip = rices.read_clip(tmp_path / 'bundle')
    assert clip.config.vision == ClipEmbeddingConfig(CONFIG, 24) and clip.image_format.fit == 'crop'
    of_class = features(dataclasses.replace(CONFIG, norm_features=True, class_feature=True), params, images)[:, 0]
    np.testing.assert_allclose(clip.encode(images[:, None])[:, 0, 0], of_class @ projection, rtol=1e-4, atol=1e-5)
    write(alone(functools.partial(vit, 'clip')), str(file), str(tmp_path / 'trunk'), **how)
    with pytest.raises(ValueError, match='holds no CLIP with its projection. Make one'):
        rices.read_clip(tmp_path / 'trunk')


def test_what_open_clips_json_says_beside_the_file(tmp_path, params):
    state = to_state(vit_tensors(CONFIG, 'open_clip', 'visual.'), params)
    safetensors.numpy.save_file(state, tmp_path / 'open_clip_model.safetensors')
    said = dict(
        model_cfg=dict(quick_gelu=True, vision_cfg=dict(width=48, head_width=16)),
        preprocess_cfg=dict(mean=[0.5, 0.5, 0.5], std=[0.25, 0.5, 1.0]),
    )
    (tmp_path / 'open_clip_config.json').write_text(json.dumps(said))
    config, _ = read_vit(str(tmp_path / 'open_clip_model.safetensors'), 'clip')
    assert config == dataclasses.replace(CONFIG, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))


@pytest.mark.parametrize(
    'said, expected',
    [
        (dict(image_mean=[0.5] * 3, image_std=[0.25] * 3), dict(mean=(0.5,) * 3, std=(0.25,) * 3)),
        (dict(do_center_crop=False, size=dict(height=42, width=42)), dict(fit='squash')),
        (dict(do_center_crop=True, size=dict(shortest_edge=42)), dict(fit='crop')),
    ],
)
def test_a_folder_says_how_its_images_are_prepared(tmp_path, params, said, expected):
    """As that of LAION's first ViT-L/14, whose means are .5."""
    state = to_state(vit_tensors(CONFIG, 'transformers', 'vision_model.'), params)
    safetensors.numpy.save_file(state, tmp_path / 'model.safetensors')
    c = CONFIG
    vision = dict(hidden_size=c.width, num_hidden_layers=c.depth, num_attention_heads=c.heads, patch_size=c.patch)
    vision |= dict(intermediate_size=c.ffw_width, image_size=c.resolution)
    (tmp_path / 'config.json').write_text(json.dumps(dict(model_type='clip', vision_config=vision)))
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(said))
    assert read_vit(str(tmp_path), 'clip')[0] == dataclasses.replace(CONFIG, **expected)
    assert read_vit(str(tmp_path), 'clip', 'gelu')[0] == dataclasses.replace(CONFIG, activation='gelu', **expected)


def test_how_open_clip_makes_images_square(tmp_path, params):
    """DFN's ViT-H/14 squashes them. An image may be larger than its patches by less than one."""
    state = to_state(vit_tensors(CONFIG, 'open_clip', 'visual.'), params)
    safetensors.numpy.save_file(state, tmp_path / 'open_clip_model.safetensors')

    def config(**said):
        vision = dict(width=48, head_width=16, image_size=CONFIG.resolution + 5)
        said = dict(model_cfg=dict(quick_gelu=True, vision_cfg=vision), preprocess_cfg=said)
        (tmp_path / 'open_clip_config.json').write_text(json.dumps(said))
        return read_vit(str(tmp_path / 'open_clip_model.safetensors'), 'clip')[0]

    assert config(resize_mode='squash') == dataclasses.replace(CONFIG, fit='squash', resolution=CONFIG.resolution + 5)
    assert config(resize_mode='shortest').fit == config().fit == 'crop'
    with pytest.raises(ValueError, match="resize_mode 'longest'"):
        config(resize_mode='longest')


def test_bad_sources_are_named(tmp_path, params):
    state = to_state(vit_tensors(CONFIG, 'open_clip', 'visual.'), params)
    file = tmp_path / 'clip.safetensors'

    def refuses(match, state, activation='quick_gelu', heads=3):
        safetensors.numpy.save_file(state, file)
        with pytest.raises(ValueError, match=match) as error:
            vit('clip', str(file), activation, heads)
        assert str(file) in str(error.value)

    refuses('--activation=quick_gelu', state, '')
    refuses('number of heads.*--heads', state, heads=0)
    refuses('it has none of the tensors', {'layer1.weight': np.zeros(3)})
    refuses(r'missing: visual.ln_post.bias \(48,\)', {k: v for k, v in state.items() if k != 'visual.ln_post.bias'})
    refuses(
        'unused: visual.transformer.resblocks.0.ls_1.gamma',
        state | {'visual.transformer.resblocks.0.ls_1.gamma': np.zeros(48)},
    )
    refuses(r'ln_post.bias has shape \(47,\), not \(48,\)', state | {'visual.ln_post.bias': np.zeros(47)})
    folder = tmp_path / 'folder'
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match='folder.*config.json'):
        read_vit(str(folder), 'clip')
    (folder / 'config.json').write_text(json.dumps(dict(model_type='siglip')))
    with pytest.raises(FileNotFoundError, match='folder has neither model.safetensors'):
        read_vit(str(folder), 'clip')
    (folder / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map={'a': 'model-1-of-2.safetensors'})))
    with pytest.raises(FileNotFoundError, match='folder.*model-1-of-2.safetensors'):
        read_vit(str(folder), 'clip')
    (folder / 'model.safetensors.index.json').unlink()
    safetensors.numpy.save_file(
        {f'vision_model.{k}': v for k, v in {'embeddings.patch_embedding.weight': np.zeros(3)}.items()},
        folder / 'model.safetensors',
    )
    with pytest.raises(ValueError, match="folder.*'siglip', which is not a CLIP"):
        read_vit(str(folder), 'clip')
