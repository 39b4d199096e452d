"""A model as three programs in StableHLO, which run without this package: `python -m flamingo_jax.convert stablehlo`.

    encode   parameters, images                      -> the media tokens of each image
    prefill  parameters, media, tokens, valid, room  -> logits after each prompt, media, text
    decode   parameters, media, text, tokens         -> logits after one more token of each, text

Media and text are dicts of arrays that prefill makes, and decode takes and gives (`decode.Media`, `decode.Text`). The
numbers of images, frames, prompts, tokens and places in the cache are symbolic: one program takes all of them.
`examples/answer_exported.py` runs them.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from jax import export

from flamingo_jax import __version__
from flamingo_jax.errors import MissingPackageError, UserError
from flamingo_jax.files import as_path, whole
from flamingo_jax.inference import decode
from flamingo_jax.inference.pretrained import Pretrained, load
from flamingo_jax.model.flamingo import Flamingo, Media, Params

PLATFORMS = ('cpu', 'tpu', 'cuda')
MANIFEST, PARAMETERS = 'manifest.json', 'parameters.safetensors'
DIMENSIONS = dict(
    n='images, of a prompt or in all; at least 1',
    t='frames of an image, 1 of a still',
    b='prompts',
    l='tokens of the longest prompt; the others are padded on the left, where valid is false',
    p='places of the cache: at least l and the new tokens together. Of room, which is false, only the shape counts',
)
ARGUMENTS = dict(
    encode=('parameters', 'images'),
    prefill=('parameters', 'media', 'tokens', 'valid', 'room'),
    decode=('parameters', 'media', 'text', 'tokens'),
)


def write(source: str, out: str, lm: str = '', dtype: str = '') -> None:
    """Writes the folder of a model's programs: NAME.jax for each, its parameters, its tokenizer and manifest.json.

    Args:
      source: a bundle, or the workdir of a run.
      lm: the bundle of the language model, if `source` has none.
      dtype: float32 or bfloat16, of parameters and computation; '' is float32 on a CPU, else bfloat16.

    Raises:
      FileExistsError: `out` exists.
      FileNotFoundError, ValueError: there is no such model, or it is one that cannot be written so.
    """
    try:
        import flatbuffers  # noqa: F401  # JAX needs it to write a program.
    except ModuleNotFoundError as error:
        raise MissingPackageError("It needs FlatBuffers. Install it: pip install 'flamingo_jax[stablehlo]'") from error
    flamingo = load(source, lm=lm, dtype=dtype or None)
    _refuse(flamingo, source)
    with whole(as_path(out), MANIFEST) as folder:
        folder.mkdir()
        written = programs(flamingo)
        for name, program in written.items():
            (folder / f'{name}.jax').write_bytes(program.serialize())
        state = {name: np.asarray(value) for name, value in named(flamingo.params).items()}
        safetensors.numpy.save_file(state, folder / PARAMETERS)
        tokenizer = flamingo.tokenizer
        (folder / tokenizer.file).write_bytes(tokenizer.model)
        (folder / MANIFEST).write_text(json.dumps(_manifest(flamingo, written), indent=1) + '\n')


def _refuse(flamingo: Pretrained, source: str) -> None:
    c = flamingo.config
    if c.vision is None or c.xattn is None:
        raise UserError(f'{source} does not write about images. Give a whole Flamingo.')
    if flamingo.image_format.fit == 'canvas':
        raise UserError(f'{source} takes images of several shapes, and such a model is not exported.')
    if flamingo.model.quantised is not None:
        raise UserError('A quantised model is not exported. Give --dtype=float32 or --dtype=bfloat16.')


def programs(flamingo: Pretrained) -> dict[str, export.Exported]:
    """Each program, for all of `PLATFORMS`. Its parameters are a dict of those that it reads."""
    model, c = flamingo.model, flamingo.config
    of_images = {name: flamingo.params[name] for name in ('vision', 'resampler') if name in flamingo.params}
    of_text = {name: tree for name, tree in flamingo.params.items() if name not in of_images}

    def encode(params, images):
        return dict(media=model.media(_tree(params, of_images), images[:, None]).tokens)

    def prefill(params, media, tokens, valid, room):
        media, text, logits = _read(model, _tree(params, of_text), media, tokens, valid, room)
        return dict(logits=logits, media=named(media), text=named(text))

    def more(params, media, text, tokens):
        media, text = _tree(media, read[0]), _tree(text, read[1])
        logits, text = decode.extend(model, _tree(params, of_text), media, text, tokens)
        return dict(logits=logits[:, 0], text=named(text))

    def prompts(b, l, n, p):
        media = _array((b, n * c.media_tokens, c.media_width), model.dtype)
        return media, _array((b, l), np.int32), _array((b, l), bool), _array((b, p), bool)

    n, t = export.symbolic_shape('n, t')
    height, width = flamingo.image_format.blank(1).shape[1:3]
    images = _array((n, 1 if c.resampler is None else t, height, width, 3), np.uint8)
    b, n, p = export.symbolic_shape('b, n, p')
    read = jax.eval_shape(lambda *given: _read(model, of_text, *given), *prompts(b, 1, n, p))
    state = named(read[0]), named(read[1]), _array((b, 1), np.int32)
    b, l, n, p = export.symbolic_shape('b, l, n, p', constraints=['p >= l'])
    return dict(
        encode=_exported(encode, named(of_images), images),
        prefill=_exported(prefill, named(of_text), *prompts(b, l, n, p)),
        decode=_exported(more, named(of_text), *state),
    )


def _read(model: Flamingo, params: Params, media, tokens, valid, room) -> tuple[Media | None, decode.Text, Any]:
    seen = decode.keys_values(model, params, Media(media, None))
    logits, text = decode.prefill(model, params, seen, tokens, valid, room.shape[1] - tokens.shape[1])
    return *decode.after_prompt(model, seen, text), logits


def _exported(function: Callable[..., Any], *arguments: Any) -> export.Exported:
    return export.export(jax.jit(function, keep_unused=True), platforms=PLATFORMS)(*arguments)


def _array(shape: Iterable[Any], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(shape), dtype)


def named(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their names, such as lm/embedder/tokens."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def _tree(arrays: dict[str, Any], like: Any) -> Any:
    """The tree whose arrays these are, with the structure of another one."""
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in named(like)])


def _manifest(flamingo: Pretrained, written: dict[str, export.Exported]) -> dict[str, Any]:
    """What whoever runs the programs has to know."""
    c, tokenizer, format = flamingo.config, flamingo.tokenizer, flamingo.image_format
    return dict(
        flamingo_jax=__version__,
        jax=jax.__version__,
        platforms=PLATFORMS,
        parameters=PARAMETERS,
        tokenizer=tokenizer.file,
        image=dict(
            height=format.size,
            width=format.size,
            fit=format.fit,
            media_tokens=c.media_tokens,
            media_width=c.media_width,
        ),
        context=c.lm.context,
        tokens=dict(
            bos=tokenizer.bos,
            pad=tokenizer.pad,
            end_of_chunk=tokenizer.eoc,
            image=list(tokenizer.image_tag),
            ends=flamingo.ends,
            never=flamingo.banned,
        ),
        dimensions=DIMENSIONS,
        programs={
            name: dict(
                file=f'{name}.jax',
                calling_convention=program.calling_convention_version,
                inputs=[
                    one
                    for argument, tree in zip(ARGUMENTS[name], _arguments(program), strict=True)
                    for one in _described({argument: tree})
                ],
                outputs=_described(jax.tree.unflatten(program.out_tree, program.out_avals)),
            )
            for name, program in written.items()
        },
    )


def _arguments(program: export.Exported) -> tuple[Any, ...]:
    arguments, _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    return arguments


def _described(tree: Any) -> list[dict[str, Any]]:
    """Name, shape and dtype of each array, in the order of the program. A symbolic size is text."""
    return [
        dict(name=name, shape=[n if isinstance(n, int) else str(n) for n in one.shape], dtype=one.dtype.name)
        for name, one in named(tree).items()
    ]
