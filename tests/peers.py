"""The originals that parity tests compare with, tiny and with random weights of realistic scale: nothing is downloaded.

OpenFlamingo's own `generate` fails with transformers 5 when no row is padded (it takes an attention mask of ones
away); the mixin below gives that argument a default, which is the only change.
"""

import json
import pathlib
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import safetensors.numpy
import tokenizers

from flamingo_jax.conversion.writers import write_torch_checkpoint
from flamingo_jax.inference import decode, search
from flamingo_jax.inference.sampling import Sampling
from tests.golden import make_language_models

GOLDEN = pathlib.Path(__file__).parent / 'golden'

# That of llava-hf/llava-1.5-7b-hf, without a block that marks what is generated.
VICUNA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
WORDS = 90  # In the tiny tokenizer, beside its four control tokens.


def value(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Numbers that depend on a tensor's name alone, at the scale that published weights have.

    Activations are of order 1 and beyond, norms off 1, biases off 0, gates open.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noise = np.asarray(rng.standard_normal(shape), np.float32)
    if name.endswith(('attn_gate', 'alpha_cross_attn')):
        return np.float32(0.7) + np.float32(0.2) * noise
    if name.endswith(('ff_gate', 'alpha_dense')):
        return np.float32(-0.4) + np.float32(0.1) * noise
    if len(shape) > 1:
        return noise * np.float32(1.5 * np.prod(shape[1:]) ** -0.5)
    return np.asarray(np.float32(0.3) * noise + np.float32(name.endswith('weight')))


def randomise(module, prefix: str = '', seed: int = 0):
    """A torch module with `value` of each of its parameters' names."""
    import torch

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(value(prefix + name, tuple(parameter.shape), seed)))
    return module.eval()


def open_clip_model(quick_gelu: bool = True, **vision):
    """An open_clip CLIP with a tiny ViT of 3 heads and a tinier text tower."""
    import open_clip

    vision = dict(image_size=42, layers=3, width=48, head_width=16, patch_size=14) | vision
    text = dict(context_length=16, vocab_size=64, width=32, heads=2, layers=1)
    model = open_clip.model.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=text, quick_gelu=quick_gelu)
    model.visual.output_tokens = True
    return randomise(model)


def standardised(images: np.ndarray, config):
    """What the originals take of uint8 [... height width 3]: a torch tensor [... 3 height width]."""
    import torch

    x = (images.astype(np.float32) / 255 - np.float32(config.mean)) / np.float32(config.std)
    return torch.from_numpy(np.moveaxis(x, -1, -3).copy())


def write_tokenizer(folder, extra: tuple[str, ...] = (), begin: bool = True, words: int = WORDS) -> None:
    """A tokenizer.json of whole words w0, w1, ... between spaces, after <pad>, <s>, </s> and <unk>."""
    names = ['<pad>', '<s>', '</s>', '<unk>', *(f'w{i}' for i in range(words))]
    model = tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, '<unk>')
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(names[:4] + list(extra))
    if begin:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single='<s> $A', special_tokens=[('<s>', 1)]
        )
    tokenizer.save(str(folder / 'tokenizer.json'))


def language_model(kind: str, vocab_size: int, depth: int = 4, **sizes):
    """A tiny transformers LM: llama (with `sizes`), gpt_neox, mpt, mosaic_gpt (MPT-1B; 96 tokens and 3 blocks), opt."""
    import transformers

    if kind == 'mosaic_gpt':
        return make_language_models.random_model(kind)

    common = dict(vocab_size=vocab_size, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    width = dict(hidden_size=64, num_hidden_layers=depth, num_attention_heads=4, max_position_embeddings=128) | common
    if kind == 'llama':
        sizes = dict(intermediate_size=96, num_key_value_heads=2) | width | sizes
        config = transformers.LlamaConfig(**sizes)
    elif kind == 'gpt_neox':
        config = transformers.GPTNeoXConfig(intermediate_size=160, **width)
    elif kind == 'mpt':
        config = transformers.MptConfig(d_model=64, n_layers=depth, n_heads=4, max_seq_len=128, **common)
    else:
        config = transformers.OPTConfig(ffn_dim=96, word_embed_proj_dim=64, **width)
    # With the seed 0 this MPT says one word whatever it is shown.
    return randomise(transformers.AutoModelForCausalLM.from_config(config), seed=int(kind == 'mpt'))


def open_flamingo(
    folder,
    kind: str = 'gpt_neox',
    every: int = 2,
    depth: int = 4,
    spare: int = 5,
    pads: bool = True,
    normed: bool = False,
    words: int = WORDS,
    sizes: Mapping[str, int] = MappingProxyType({}),
    vision: Mapping[str, int] = MappingProxyType({}),
):
    """An OpenFlamingo, and in `folder` the three things that are published: checkpoint.pt, lm/, clip.pt.

    spare: rows of the LM's embedding beyond its tokenizer's. pads: whether OpenFlamingo adds a <PAD>. normed: whether
    it has the CLIP's features as of open_clip >= 2.23, and not as when it was trained. sizes, vision: of a LLaMA's and
    of the ViT's config, where they are not tiny.
    """
    import torch
    from open_flamingo.src.factory import _infer_decoder_layers_attr_name
    from open_flamingo.src.flamingo import Flamingo
    from open_flamingo.src.flamingo_lm import FlamingoLMMixin
    from open_flamingo.src.utils import extend_instance

    class Mixin(FlamingoLMMixin):
        def forward(self, input_ids=None, attention_mask=None, **kwargs):
            return FlamingoLMMixin.forward(self, input_ids, attention_mask, **kwargs)

    clip = open_clip_model(final_ln_after_pool=not normed, **vision)
    torch.save(clip.state_dict(), folder / 'clip.pt')
    size = words + 4
    lm = language_model(kind, size + spare, depth, **sizes)
    if kind == 'mosaic_gpt':
        make_language_models.save(lm, kind, folder / 'lm')
        fields = json.loads((folder / 'lm' / 'config.json').read_text())
        (folder / 'lm' / 'config.json').write_text(json.dumps(fields | dict(bos_token_id=1, pad_token_id=0)))
    else:
        lm.save_pretrained(folder / 'lm', max_shard_size='100KB')
    write_tokenizer(folder / 'lm', begin=kind in ('llama', 'opt'), words=words)
    extend_instance(lm, Mixin)
    lm.set_decoder_layers_attr_name(_infer_decoder_layers_attr_name(lm))
    lm.resize_token_embeddings(size + 2 + pads)
    vis_dim = clip.visual.class_embedding.shape[0]
    model = Flamingo(clip, lm, size, size + 1, vis_dim=vis_dim, cross_attn_every_n_layers=every)
    seed = int(kind == 'mpt')
    randomise(model.perceiver, 'perceiver.', seed)
    for i, block in enumerate(model.lang_encoder.gated_cross_attn_layers):
        if block is not None:
            randomise(block, f'lang_encoder.{lm.decoder_layers_attr_name}.{i}.gated_cross_attn_layer.', seed)
    rows = 2 + pads, lm.get_input_embeddings().weight.shape[1]
    with torch.no_grad():
        lm.get_input_embeddings().weight[size:] = torch.from_numpy(value('new rows', rows))
        if kind == 'llama':  # Not in a checkpoint, so that nobody can know it.
            lm.get_output_embeddings().weight[size:] = 0.0
        if kind == 'gpt_neox':
            lm.get_output_embeddings().weight[size:] = torch.from_numpy(value('new output rows', rows))
    model.requires_grad_(False)
    model.perceiver.requires_grad_(True)
    model.lang_encoder.gated_cross_attn_layers.requires_grad_(True)
    model.lang_encoder.get_input_embeddings().requires_grad_(True)
    # What its training saves: neither what is frozen, unless it is an embedding, nor the second names of the same
    # tensors.
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad and 'embed' not in name}
    twice = ('vision_encoder.', 'lang_encoder.old_decoder_blocks.', 'lang_encoder.gated_cross_attn_layers.')
    state = {name: p for name, p in model.state_dict().items() if name not in frozen and not name.startswith(twice)}
    if kind == 'gpt_neox':  # Its name when the published files were written.
        state['lang_encoder.embed_out.weight'] = lm.get_output_embeddings().weight
    torch.save(
        dict(epoch=3, model_state_dict=state, optimizer_state_dict={'state': {}, 'param_groups': [{'lr': 1e-4}]}),
        folder / 'checkpoint.pt',
    )
    return model.eval(), {name: value.detach().numpy() for name, value in state.items()}


def idefics(
    folder,
    resampler: bool = True,
    alpha: str = 'float',
    qk_norms: bool = True,
    every: int = 2,
    depth: int = 4,
    extra: int = 2,
    words: int = WORDS,
    sizes: Mapping[str, int] = MappingProxyType({}),
    vision: Mapping[str, int] = MappingProxyType({}),
    perceiver: Mapping[str, int] = MappingProxyType({}),
):
    """An IDEFICS, saved in `folder` as its Hugging Face folder with a tokenizer.

    sizes, vision, perceiver: of its config and of the two inside it, where they are not tiny.
    """
    import transformers

    size = words + 4
    fields = dict(
        vocab_size=size,
        additional_vocab_size=extra,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=depth,
        num_attention_heads=4,
        cross_layer_interval=every,
        qk_layer_norms=qk_norms,
        use_resampler=resampler,
        alpha_initializer='ones',
        alpha_type=alpha,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        max_position_embeddings=128,
        vision_config=dict(
            embed_dim=48, image_size=42, intermediate_size=96, patch_size=14, num_hidden_layers=2, num_attention_heads=4
        )
        | dict(vision),
        perceiver_config=dict(
            use_resampler=resampler,
            resampler_n_latents=8,
            resampler_depth=2,
            resampler_n_heads=4,
            resampler_head_dim=20,
            qk_layer_norms_perceiver=qk_norms,
        )
        | dict(perceiver),
    )
    model = randomise(transformers.IdeficsForVisionText2Text(transformers.IdeficsConfig(**fields | dict(sizes))))
    model.save_pretrained(folder, max_shard_size='200KB')
    names = ('<fake_token_around_image>', '<image>', '<end_of_utterance>')[:extra]
    write_tokenizer(folder, names, words=words)
    return model


def llava(
    folder,
    tower: str = 'clip',
    text: str = 'llama',
    layer: int = -2,
    strategy: str = 'default',
    published: bool = False,
    tied: bool = False,
    bias: bool = True,
):
    """A LLaVA, saved in `folder` as its Hugging Face folder with a tokenizer and a processor.

    tower, text: 'clip' or 'siglip'; 'llama', 'mistral' or 'qwen2'. published: with the tensors' names, and the files
    about images, of the published folders, and not as the installed transformers writes them.
    """
    import transformers

    vision = dict(image_size=42, patch_size=14, hidden_size=48, intermediate_size=90, num_hidden_layers=3)
    vision |= dict(num_attention_heads=3, model_type=f'{tower}_vision_model')
    lm: dict[str, Any] = dict(vocab_size=WORDS + 10, hidden_size=64, intermediate_size=90, num_hidden_layers=3)
    lm |= dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, model_type=text)
    lm |= dict(bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=tied)
    lm |= dict(sliding_window=7) if text == 'mistral' else {}
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=lm,
        image_token_index=WORDS + 4,
        image_seq_length=9,
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
        multimodal_projector_bias=bias,
        tie_word_embeddings=tied,
    )
    model = randomise(transformers.LlavaForConditionalGeneration(config))
    model.save_pretrained(folder, max_shard_size='100KB')
    write_tokenizer(folder, ('<image>',))
    (folder / 'chat_template.json').write_text(json.dumps(dict(chat_template=VICUNA_TEMPLATE)))
    square = dict(height=42, width=42)
    if tower == 'clip':
        images = transformers.CLIPImageProcessorPil(size=dict(shortest_edge=42), crop_size=square)
    else:
        images = transformers.SiglipImageProcessorPil(size=square)
    if published:
        images.save_pretrained(folder)
        state = {}
        for file in sorted(folder.glob('*.safetensors')):
            state |= safetensors.numpy.load_file(file)
            file.unlink()
        (folder / 'model.safetensors.index.json').unlink()
        state = {name.replace('vision_tower.', 'vision_tower.vision_model.'): tensor for name, tensor in state.items()}
        safetensors.numpy.save_file(state, folder / 'model.safetensors')
    else:
        about = dict(image_processor=images.to_dict(), processor_class='LlavaProcessor')
        (folder / 'processor_config.json').write_text(json.dumps(about))
    return model


def golden() -> dict[str, np.ndarray]:
    """What `tests/golden/make_peers.py` wrote."""
    return dict(np.load(GOLDEN / 'peers.npz'))


def write_golden(folder, name: str) -> dict[str, np.ndarray]:
    """Writes the files of the tiny 'open_flamingo', 'idefics' or 'llava' of peers.npz; returns its tensors."""
    shapes = json.loads(str(golden()[name]))
    if name in ('idefics', 'llava'):
        folder.mkdir()
        (folder / 'config.json').write_text(str(golden()[f'{name}_config']))
        state = {name: value(name, shape) for name, shape in shapes.items()}
        safetensors.numpy.save_file(state, folder / 'model.safetensors')
        write_tokenizer(folder, ('<fake_token_around_image>', '<image>')[name == 'llava' :])
        return state
    (folder / 'lm').mkdir()
    (folder / 'lm' / 'config.json').write_text(str(golden()['open_flamingo_lm']))
    parts = {part: {name: value(name, shape) for name, shape in shapes[part].items()} for part in ('clip', 'lm')}
    safetensors.numpy.save_file(parts['lm'], folder / 'lm' / 'model.safetensors')
    safetensors.numpy.save_file(parts['clip'], folder / 'clip.safetensors')
    write_tokenizer(folder / 'lm')
    state = {name: value(name, shape) for name, shape in shapes['checkpoint'].items()}
    rows = parts['lm']['model.embed_tokens.weight'][: WORDS + 4]
    state['lang_encoder.model.embed_tokens.weight'] = np.concatenate([rows, value('new rows', (3, 64))])
    write_torch_checkpoint(folder / 'checkpoint.pt', state)
    return state


def answers(model, params, images, ids, beams: int, stops: list[int], banned: tuple[int, ...]) -> np.ndarray:
    """Ten new tokens a row after token ids [b l] of one length; -1 from a stop on."""
    media = decode.encode_images(model, params, [list(row) for row in images])
    logits, text = jax.jit(decode.prefill, static_argnums=(0, 5))(
        model, params, media, ids, np.ones(ids.shape, bool), 10
    )
    prompts, marks = decode.Prompts(media, text, logits), search.Marks(tuple(stops), tuple(banned))
    return np.asarray(search.answer(model, params, prompts, jax.random.key(0), Sampling(10, beams), marks))


def random_images(b: int, n: int) -> np.ndarray:
    """Pixels of n random stills in each of b rows."""
    return np.random.default_rng(3).integers(0, 256, (b, n, 1, 42, 42, 3)).astype(np.uint8)


def assert_same_logits(ours, images: np.ndarray, ids: np.ndarray, expected: np.ndarray, tolerance: float) -> float:
    """The largest difference of our logits, as a share of the largest; also asserts that the images matter."""
    got = np.asarray(ours.logits(images, ids))
    difference = float(np.abs(got - expected).max() / np.abs(expected).max())
    assert got.shape == expected.shape and difference < tolerance
    blind = np.asarray(ours.logits(255 - images, ids))
    assert np.abs(blind - got).max() > 100 * tolerance * np.abs(expected).max()
    return difference


def mllama(folder, words: int = WORDS, text: Mapping = MappingProxyType({}), vision: Mapping = MappingProxyType({})):
    """A Llama 3.2 Vision, saved in `folder` with a tokenizer, which computes what Meta's code does.

    text, vision: of the two parts of its config, where they are not tiny.
    """
    import transformers

    size = words + 4
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
    sizes = dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2)
    layers = dict(num_hidden_layers=9, cross_attention_layers=[1, 4, 7], max_position_embeddings=160)
    rope = dict(rope_type='llama3', rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
    rope |= dict(original_max_position_embeddings=32)
    trunk = dict(hidden_size=48, attention_heads=4, intermediate_size=80, num_hidden_layers=5, num_global_layers=2)
    trunk |= dict(image_size=42, patch_size=14, intermediate_layers_indices=[1, 2, 4], vision_output_dim=192)
    config = transformers.MllamaConfig(
        text_config=dict(vocab_size=size, rope_parameters=rope) | ids | sizes | layers | dict(text),
        vision_config=trunk | dict(vision),
        image_token_index=size,
    )
    config._attn_implementation = 'eager'
    model = randomise(transformers.MllamaForConditionalGeneration(config))
    model.save_pretrained(folder, max_shard_size='200KB')
    write_tokenizer(folder, ('<|image|>',), words=words)
    as_metas(model)
    return model


def blip2(folder):
    """A BLIP-2 with an OPT, saved in `folder` as its Hugging Face folder with a tokenizer and a processor."""
    import transformers

    seen = dict(hidden_size=48, intermediate_size=90, num_hidden_layers=3, num_attention_heads=3)
    asks = dict(hidden_size=36, intermediate_size=50, num_hidden_layers=4, num_attention_heads=3)
    text = dict(vocab_size=WORDS + 10, hidden_size=64, word_embed_proj_dim=64, ffn_dim=90, num_hidden_layers=3)
    text |= dict(num_attention_heads=4, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = transformers.Blip2Config(
        vision_config=seen | dict(image_size=42, patch_size=14),
        qformer_config=asks,
        text_config=text | dict(model_type='opt'),
        num_query_tokens=5,
        image_token_index=WORDS + 4,
    )
    model = randomise(transformers.Blip2ForConditionalGeneration(config))
    model.save_pretrained(folder, max_shard_size='100KB')
    write_tokenizer(folder, ('<image>',))
    images = transformers.BlipImageProcessorPil(size=dict(height=42, width=42)).to_dict()
    about = dict(image_processor=images, processor_class='Blip2Processor', num_query_tokens=5)
    (folder / 'processor_config.json').write_text(json.dumps(about))
    return model


def as_metas(model) -> None:
    """Has a transformers Mllama compute what Meta's code does, in the two places where it differs."""

    def before_the_layers(module, args, output):
        output.hidden_states = (args[0], *output.hidden_states[:-1])
        return output

    model.model.vision_model.transformer.register_forward_hook(before_the_layers)
    for layer in model.model.language_model.layers:
        if not hasattr(layer, 'cross_attn'):
            continue

        def remember(module, args, kwargs):
            module.cross_attn.sees = kwargs['full_text_row_masked_out_mask']

        def nothing_where_it_sees_nothing(module, args, output):
            return (output[0] * module.sees[:, 0], *output[1:])

        layer.register_forward_pre_hook(remember, with_kwargs=True)
        layer.cross_attn.register_forward_hook(nothing_where_it_sees_nothing)
