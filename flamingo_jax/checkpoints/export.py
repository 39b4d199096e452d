"""Writes a bundle in its original format, bit for bit."""

import types

import numpy as np

from flamingo_jax.checkpoints import bundle
from flamingo_jax.conversion import blip2, idefics, llava, mllama, open_flamingo
from flamingo_jax.conversion.folders import roles_of
from flamingo_jax.conversion.writers import write_folder, write_torch_checkpoint
from flamingo_jax.errors import UserError
from flamingo_jax.files import Path, as_path, whole


def to_open_flamingo(source: str, out: str, lm: str = '') -> None:
    """Writes the trained part of a bundle as the .pt file of an OpenFlamingo.

    lm: the bundle of the language model, if `source` has none.

    Raises:
      FileExistsError: `out` exists.
      FileNotFoundError, ValueError: there is no bundle, or its model does not fit the format; nothing is written.
    """
    found, path = _open(source, out, lm, needed=('lm', 'vision', 'xattn', 'resampler'))
    with whole(path) as aside:
        if trained := {'lm', 'lora', 'vision'} & set(found.trained):
            raise UserError(
                f'{source} has trained {sorted(trained)}, but an OpenFlamingo file contains neither the language '
                'model nor the trunk. Use the bundle itself, or fine-tune without them.'
            )
        parts = {name: found.params(name) for name in found.checksums if name != 'vision'}
        tensors = open_flamingo.export(found.config, parts)
        _refuse_standardised(found)
        write_torch_checkpoint(aside, tensors)


def to_idefics(source: str, out: str, lm: str = '') -> None:
    """Writes a bundle as the Hugging Face folder of an IDEFICS; `lm` and errors as for `to_open_flamingo`."""
    _to_folder(idefics, *_open(source, out, lm, needed=('lm', 'vision', 'xattn')))


def to_llava(source: str, out: str, lm: str = '') -> None:
    """Writes a bundle as the Hugging Face folder of a LLaVA; `lm` and errors as for `to_open_flamingo`."""
    _to_folder(llava, *_open(source, out, lm, needed=('lm', 'vision', 'xattn', 'resampler')))


def to_blip2(source: str, out: str, lm: str = '') -> None:
    """Writes a bundle as the Hugging Face folder of a BLIP-2; `lm` and errors as for `to_open_flamingo`."""
    _to_folder(blip2, *_open(source, out, lm, needed=('lm', 'vision', 'xattn', 'resampler')))


def to_mllama(source: str, out: str, lm: str = '') -> None:
    """Writes a bundle as the Hugging Face folder of a Llama 3.2 Vision; `lm` and errors as for `to_open_flamingo`."""
    _to_folder(mllama, *_open(source, out, lm, needed=('lm', 'vision', 'xattn', 'resampler')))


def _to_folder(family: types.ModuleType, found: bundle.Bundle, path: Path) -> None:
    """`family`: a module of `conversion/` with `fields_of`, `tensors_of` and `write_processor`."""
    with whole(path) as aside:
        roles = roles_of(found.tokenizer())
        fields = family.fields_of(found.config) | roles
        if 'text_config' in fields:  # Where transformers looks for them.
            fields['text_config'] |= roles
        _refuse_standardised(found)
        parts = {name: found.params(name) for name in found.checksums}
        write_folder(aside, fields, family.tensors_of(found.config), parts)
        family.write_processor(aside, found.config, found.tokenizer())


def _open(source: str, out: str, lm: str, needed: tuple[str, ...]) -> tuple[bundle.Bundle, Path]:
    """The bundle, and where it will be written. ValueError if its model lacks a component that is needed."""
    found, path = bundle.read(source, lm), as_path(out)
    if path.exists():
        raise FileExistsError(f'{path} exists already. Remove it, or choose another name.')
    if missing := [name for name in needed if getattr(found.config, name) is None]:
        raise UserError(f'{source} is no Flamingo that could be written so: it has no {", ".join(missing)}.')
    return found, path


def _refuse_standardised(found: bundle.Bundle) -> None:
    """ValueError if a trunk's features are standardised, which no original format can say."""
    vision = found.params('vision')
    if np.any(np.asarray(vision['mean']) != 0) or np.any(np.asarray(vision['std']) != 1):
        raise UserError(
            f'The features of {found.path} are standardised (convert --standardise), which the original format cannot '
            'say. Use the bundle itself.'
        )
