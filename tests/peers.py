"""The originals that parity tests compare with, tiny and with random weights of realistic scale: nothing is downloaded.

OpenFlamingo's own `generate` fails with transformers 5 when no row is padded (it takes an attention mask of ones away); the
mixin below gives that argument a default, which is the only change.
"""

import json

import numpy as np
import tokenizers

WORDS = 90  # In the tiny tokenizer, beside its four control tokens.


def randomise(module, seed: int = 0):
    """Scales that published weights have: activations of order 1 and beyond, norms off 1, biases off 0."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 1.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(noise * scale + (parameter.ndim == 1) * (parameter.mean() > 0.5))
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


def write_tokenizer(folder, extra: tuple[str, ...] = (), begin: bool = True) -> None:
    """A tokenizer.json of whole words w0, w1, ... between spaces, after <pad>, <s>, </s> and <unk>."""
    names = ['<pad>', '<s>', '</s>', '<unk>', *(f'w{i}' for i in range(WORDS))]
    model = tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, '<unk>')
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(names[:4] + list(extra))
    if begin:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single='<s> $A', special_tokens=[('<s>', 1)]
        )
    tokenizer.save(str(folder / 'tokenizer.json'))


def language_model(kind: str, vocab_size: int, depth: int = 4):
    """A tiny transformers LM: llama, gpt_neox, mpt or opt."""
    import transformers

    common = dict(vocab_size=vocab_size, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    width = dict(hidden_size=64, num_hidden_layers=depth, num_attention_heads=4, max_position_embeddings=128) | common
    if kind == 'llama':
        config = transformers.LlamaConfig(intermediate_size=96, num_key_value_heads=2, **width)
    elif kind == 'gpt_neox':
        config = transformers.GPTNeoXConfig(intermediate_size=160, **width)
    elif kind == 'mpt':
        config = transformers.MptConfig(d_model=64, n_layers=depth, n_heads=4, max_seq_len=128, **common)
    else:
        config = transformers.OPTConfig(ffn_dim=96, word_embed_proj_dim=64, **width)
    return randomise(transformers.AutoModelForCausalLM.from_config(config))


def open_flamingo(folder, kind: str = 'gpt_neox', every: int = 2, depth: int = 4, spare: int = 5, pads: bool = True):
    """An OpenFlamingo, and in `folder` the three things that are published: checkpoint.pt, lm/, clip.pt.

    spare: rows of the LM's embedding beyond its tokenizer's. pads: whether OpenFlamingo adds a <PAD>.
    """
    import torch
    from open_flamingo.src.factory import _infer_decoder_layers_attr_name
    from open_flamingo.src.flamingo import Flamingo
    from open_flamingo.src.flamingo_lm import FlamingoLMMixin
    from open_flamingo.src.utils import extend_instance

    class Mixin(FlamingoLMMixin):
        def forward(self, input_ids=None, attention_mask=None, **kwargs):
            return FlamingoLMMixin.forward(self, input_ids, attention_mask, **kwargs)

    clip = open_clip_model(final_ln_after_pool=True)  # What open_clip did when OpenFlamingo was trained.
    torch.save(clip.state_dict(), folder / 'clip.pt')
    size = WORDS + 4
    lm = language_model(kind, size + spare, depth)
    lm.save_pretrained(folder / 'lm', max_shard_size='100KB')
    write_tokenizer(folder / 'lm', begin=kind in ('llama', 'opt'))
    extend_instance(lm, Mixin)
    lm.set_decoder_layers_attr_name(_infer_decoder_layers_attr_name(lm))
    lm.resize_token_embeddings(size + 2 + pads)
    model = Flamingo(clip, lm, size, size + 1, vis_dim=48, cross_attn_every_n_layers=every)
    randomise(model.perceiver, 1)
    for i, block in enumerate(model.lang_encoder.gated_cross_attn_layers):
        if block is not None:
            randomise(block, i + 2)
            with torch.no_grad():
                block.attn_gate.fill_(0.9 - 0.2 * i)
                block.ff_gate.fill_(-0.5 + 0.1 * i)
    with torch.no_grad():
        lm.get_input_embeddings().weight[size:] = 0.2 * torch.randn(
            2 + pads, 64, generator=torch.Generator().manual_seed(9)
        )
        if kind == 'llama':  # Not in a checkpoint, so that nobody can know it.
            lm.get_output_embeddings().weight[size:] = 0.0
    model.requires_grad_(False)
    model.perceiver.requires_grad_(True)
    model.lang_encoder.gated_cross_attn_layers.requires_grad_(True)
    model.lang_encoder.get_input_embeddings().requires_grad_(True)
    # What its training saves: neither what is frozen, unless it is an embedding, nor the second names of the same tensors.
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
):
    """An IDEFICS, saved in `folder` as its Hugging Face folder with a tokenizer."""
    import torch
    import transformers

    size = WORDS + 4
    config = transformers.IdeficsConfig(
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
        ),
        perceiver_config=dict(
            use_resampler=resampler,
            resampler_n_latents=8,
            resampler_depth=2,
            resampler_n_heads=4,
            resampler_head_dim=20,
            qk_layer_norms_perceiver=qk_norms,
        ),
    )
    model = randomise(transformers.IdeficsForVisionText2Text(config))
    with torch.no_grad():
        for i, block in enumerate(model.model.gated_cross_attn_layers):
            block.alpha_cross_attn.add_(0.5 - 0.2 * i)
            block.alpha_dense.sub_(0.5 - 0.1 * i)
    model.save_pretrained(folder, max_shard_size='200KB')
    names = ('<fake_token_around_image>', '<image>', '<end_of_utterance>')[:extra]
    write_tokenizer(folder, names)
    fields = json.loads((folder / 'config.json').read_text())
    assert fields['model_type'] == 'idefics'
    return model
