"""Published language models, in Hugging Face's layout, as the tree `lm` of this project.

    config.json, names -> tensors    `convert`    LanguageModelConfig, {'embedder': ..., 'blocks': ...}

Tensors are a mapping from names to arrays, mapped from files (`hugging_face.py`) or from elsewhere, such as the part
of an OpenFlamingo checkpoint whose names begin with 'lang_encoder.'. A row of `FAMILIES` has a family's names of our
parameters. Shapes follow from our tree, so that no parameter can be forgotten. torch stores a linear map as [out, in],
we as [in..., out...]; blocks are stacked on a leading axis.

Sources: the model files of transformers 5.24, and of mosaicml/examples for `mosaic_gpt`.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import flax.linen as nn
import jax
import numpy as np

from flamingo_jax.conversion.language_model_configs import Fields, config_of, text_fields
from flamingo_jax.conversion.tensors import Empty, State, Tensor, in_memory, to_tree
from flamingo_jax.errors import UserError
from flamingo_jax.model.config import FlamingoConfig, LanguageModelConfig
from flamingo_jax.model.flamingo import Flamingo, Params


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of language models.

    Attributes:
      names: our path above a 'kernel', 'scale' or 'bias' -> their name above 'weight' or 'bias'; '*' is the number of
        a block.
      prefixes: possible beginnings of all names but the output's; the first is the current one.
      fused: '' or the order of queries, keys and values in one tensor: 'thirds' (all queries first) or 'heads' (by
        head).
      input_first: whether linear maps are [in, out], not [out, in] (GPT-2).
      positions_from: the row of their table of positions that is our first.
      made: our config -> tensors that are computed and not in their files (XGLM's sinusoids).
      buffers: a pattern for the ends of names that are not parameters, or not of the language model.
    """

    names: dict[str, str]
    prefixes: tuple[str, ...]
    fused: str = ''
    input_first: bool = False
    positions_from: int = 0
    made: Callable[[LanguageModelConfig], dict[str, np.ndarray]] = lambda config: {}
    buffers: str = r'rotary_emb\.inv_freq'


# The names. Ours is act(up) * gate, so that LLaMA's gate_proj is our 'up'.
LLAMA = {
    'tokens': 'embed_tokens',
    'norm_out': 'norm',
    'output': 'lm_head',
    'norm_attention': 'layers.*.input_layernorm',
    'query': 'layers.*.self_attn.q_proj',
    'key': 'layers.*.self_attn.k_proj',
    'value': 'layers.*.self_attn.v_proj',
    'out': 'layers.*.self_attn.o_proj',
    'norm_ffw': 'layers.*.post_attention_layernorm',
    'ffw/up': 'layers.*.mlp.gate_proj',
    'ffw/gate': 'layers.*.mlp.up_proj',
    'ffw/down': 'layers.*.mlp.down_proj',
}
QWEN3 = LLAMA | {'norm_query': 'layers.*.self_attn.q_norm', 'norm_key': 'layers.*.self_attn.k_norm'}
GEMMA2 = QWEN3 | {
    'norm_attended': 'layers.*.post_attention_layernorm',
    'norm_ffw': 'layers.*.pre_feedforward_layernorm',
    'norm_fed': 'layers.*.post_feedforward_layernorm',
}
OPT = {
    'tokens': 'embed_tokens',
    'positions': 'embed_positions',
    'norm_out': 'final_layer_norm',
    'output': 'lm_head',
    'norm_attention': 'layers.*.self_attn_layer_norm',
    'query': 'layers.*.self_attn.q_proj',
    'key': 'layers.*.self_attn.k_proj',
    'value': 'layers.*.self_attn.v_proj',
    'out': 'layers.*.self_attn.out_proj',
    'norm_ffw': 'layers.*.final_layer_norm',
    'ffw/up': 'layers.*.fc1',
    'ffw/down': 'layers.*.fc2',
}
GPT2 = {
    'tokens': 'wte',
    'positions': 'wpe',
    'norm_out': 'ln_f',
    'output': 'lm_head',
    'norm_attention': 'h.*.ln_1',
    'query': 'h.*.attn.c_attn',
    'out': 'h.*.attn.c_proj',
    'norm_ffw': 'h.*.ln_2',
    'ffw/up': 'h.*.mlp.c_fc',
    'ffw/down': 'h.*.mlp.c_proj',
}
BLOOM = {
    'tokens': 'word_embeddings',
    'norm_in': 'word_embeddings_layernorm',
    'norm_out': 'ln_f',
    'output': 'lm_head',
    'norm_attention': 'h.*.input_layernorm',
    'query': 'h.*.self_attention.query_key_value',
    'out': 'h.*.self_attention.dense',
    'norm_ffw': 'h.*.post_attention_layernorm',
    'ffw/up': 'h.*.mlp.dense_h_to_4h',
    'ffw/down': 'h.*.mlp.dense_4h_to_h',
}
GPT_NEOX = {
    'tokens': 'embed_in',
    'norm_out': 'final_layer_norm',
    'output': 'embed_out',
    'norm_attention': 'layers.*.input_layernorm',
    'query': 'layers.*.attention.query_key_value',
    'out': 'layers.*.attention.dense',
    'norm_ffw': 'layers.*.post_attention_layernorm',
    'ffw/up': 'layers.*.mlp.dense_h_to_4h',
    'ffw/down': 'layers.*.mlp.dense_4h_to_h',
}
MPT = {
    'tokens': 'wte',
    'norm_out': 'norm_f',
    'output': 'lm_head',
    'norm_attention': 'blocks.*.norm_1',
    'norm_query': 'blocks.*.attn.q_ln',
    'norm_key': 'blocks.*.attn.k_ln',
    'query': 'blocks.*.attn.Wqkv',
    'out': 'blocks.*.attn.out_proj',
    'norm_ffw': 'blocks.*.norm_2',
    'ffw/up': 'blocks.*.ffn.up_proj',
    'ffw/down': 'blocks.*.ffn.down_proj',
}
MOSAIC_GPT = MPT | {
    'norm_out': 'ln_f',
    'norm_attention': 'blocks.*.ln_1',
    'norm_ffw': 'blocks.*.ln_2',
    'ffw/up': 'blocks.*.mlp.mlp_up',
    'ffw/down': 'blocks.*.mlp.mlp_down',
}

SEEING = r'(vision_tower|multi_modal_projector|lm_head)\..*'  # In a Gemma 3 with vision, whose output is tied.
GEMMA_PREFIXES = ('model.', 'language_model.model.', 'model.language_model.', '')


def _xglm_positions(config: LanguageModelConfig) -> dict[str, np.ndarray]:
    """Sines, then cosines, of positions from 2 on; in float32, like theirs."""
    half = config.width // 2
    frequency = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(10_000) / (half - 1)))
    angle = np.arange(2, config.context + 2, dtype=np.float32)[:, None] * frequency
    return {'embed_positions.weight': np.concatenate([np.sin(angle), np.cos(angle)], axis=1)}


# model_type in config.json -> its family.
FAMILIES = {
    'llama': Family(LLAMA, ('model.', '')),
    'mistral': Family(LLAMA, ('model.', '')),
    'qwen2': Family(LLAMA, ('model.', '')),
    'qwen3': Family(QWEN3, ('model.', '')),
    'gemma': Family(LLAMA, ('model.', '')),
    'gemma2': Family(GEMMA2, ('model.', '')),
    'gemma3_text': Family(GEMMA2, GEMMA_PREFIXES, buffers=SEEING),
    'gpt_neox': Family(
        GPT_NEOX,
        ('gpt_neox.', ''),
        fused='heads',
        buffers=r'attention\.(bias|masked_bias|rotary_emb\.inv_freq)',
    ),
    'mpt': Family(MPT, ('transformer.', ''), fused='thirds'),
    'mosaic_gpt': Family(MOSAIC_GPT, ('transformer.', ''), fused='thirds'),
    'opt': Family(OPT, ('model.decoder.', 'decoder.', ''), positions_from=2),
    'xglm': Family(
        OPT | {'norm_out': 'layer_norm'},
        ('model.', ''),
        made=_xglm_positions,
        buffers=r'embed_positions\.weights',
    ),
    'gpt2': Family(
        GPT2,
        ('transformer.', ''),
        fused='thirds',
        input_first=True,
        buffers=r'h\.\d+\.attn\.(bias|masked_bias)',
    ),
    'bloom': Family(BLOOM, ('transformer.', ''), fused='heads'),
}


def tensors_of(family: Family, config: LanguageModelConfig, prefix: str) -> Iterator[Tensor]:
    """The mapping of all tensors of a model of this family, whose names begin with `prefix` but the output's."""
    tree = nn.meta.unbox(jax.eval_shape(Flamingo(FlamingoConfig(lm=config)).init, jax.random.key(0)))['lm']
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path: Any = cast(Any, tuple(key.key for key in keys))
        stacked, ours = path[0] == 'blocks', leaf.shape[path[0] == 'blocks' :]
        part, kind = ('/'.join(path[1:-1]), path[-1]) if len(path) > 2 else (path[1], 'table')
        fused = family.fused if part in ('query', 'key', 'value') else ''
        theirs = family.names['query' if fused else part]
        name = f'{"" if part == "output" else prefix}{theirs}.{"bias" if kind == "bias" else "weight"}'
        if kind == 'table':
            begin = family.positions_from if part == 'positions' else 0
            how: dict[str, Any] = dict(shape=(ours[0] + begin, ours[1]), axes=(0, 1), at=(slice(begin, None),))
        else:
            inputs = (2 if part == 'out' else 1) if kind == 'kernel' else 0  # How many of our dimensions.
            how = _linear(
                outputs=math.prod(ours[inputs:]),
                inputs=math.prod(ours[:inputs]) if inputs else None,
                heads={'': None, 'thirds': 1, 'heads': config.heads}[fused],
                part=('query', 'key', 'value').index(part) if fused else 0,
                input_first=family.input_first and inputs > 0,
            )
        for block in range(config.depth) if stacked else [None]:
            row: tuple[int, ...] = () if block is None else (block,)
            yield Tensor((path[0], *row, *path[1:]), name.replace('*', str(block)), ours=ours, **how)


def _linear(outputs: int, inputs: int | None, heads: int | None, part: int, input_first: bool) -> dict[str, Any]:
    """The layout of a linear map, or without inputs of a bias or scale, in their files.

    heads: number of heads, in a tensor that has queries, keys and values for each head in turn; None is a separate
    tensor.
    """
    view, at = ((outputs,), ()) if heads is None else ((heads, 3, outputs // heads), (slice(None), part))
    rest = () if inputs is None else (inputs,)
    count = outputs * (1 if heads is None else 3)
    rows = tuple(range(1 if heads is None else 2))  # The axes of the part that are its outputs.
    if input_first:
        return dict(shape=(*rest, count), view=(*rest, *view), at=(slice(None), *at), axes=tuple(range(len(rows) + 1)))
    return dict(shape=(count, *rest), view=(*view, *rest), at=at, axes=(*([len(rows)] if rest else []), *rows))


def convert(
    fields: Fields,
    tensors: State,
    empty: Empty = in_memory,
    progress: bool = False,
    family: Family | None = None,
) -> tuple[LanguageModelConfig, Params]:
    """A published language model as (our config, the tree `lm`), in the dtypes of its tensors.

    Each tensor is read once, in the order of `tensors`, so that files are read one after another.

    Args:
      fields: of its config.json.
      tensors: names -> arrays, which may be mapped from files, or objects that `np.asarray` makes arrays.
      empty, progress: as for `tensors.to_tree`.
      family: the names of the tensors, if not those of Hugging Face.

    Raises:
      ValueError: the config or a tensor does not fit; nothing is read.
    """
    config, kind = config_of(fields), text_fields(fields)['model_type']
    family = family or FAMILIES[kind]
    prefix = next((p for p in family.prefixes if f'{p}{family.names["tokens"]}.weight' in tensors), family.prefixes[0])
    tensors = {prefix + name: tensor for name, tensor in family.made(config).items()} | dict(tensors)
    # Some files repeat a tied embedding.
    repeated = f'{family.names["output"]}.weight' if config.tied else ''
    buffers = re.compile(rf'.*({family.buffers})')
    leftover = [name for name in tensors if name == repeated or buffers.fullmatch(name)]
    try:
        return config, to_tree(tensors_of(family, config, prefix), tensors, leftover, empty=empty, progress=progress)
    except ValueError as error:
        raise UserError(
            f'The tensors are not those of the {kind!r} that config.json describes ({error}). Give the config.json '
            'and all weights of the same model.'
        ) from error
