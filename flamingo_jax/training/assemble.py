"""A config -> the parts of a run, before anything is computed. Training and planning both use this code."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from flamingo_jax.checkpoints import bundle
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.rows import Batch
from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.inputs.tokenizer import MissingTokenizer, Tokenizer, extra_tokens_of_prefix
from flamingo_jax.model.attention import kernel_of
from flamingo_jax.model.bridges.bridge import bridge_from
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import rules
from flamingo_jax.training.config import check, lora_fields, quantisation, source_of, trained_trees
from flamingo_jax.training.state import boxed_shapes


@dataclasses.dataclass(frozen=True)
class Parts:
    """The model, its tokenizer, its data sets, and where its pretrained trees come from."""

    model: Flamingo
    tokenizer: Tokenizer
    frozen: dict[str, bundle.Bundle]  # Component tree -> the bundle that has it.
    start: dict[str, bundle.Bundle]  # The same for pretrained trees that are trained further.
    trained: tuple[str, ...]
    image_tag: str | Sequence[int] | None  # How the tokenizer writes <image>.
    sources: dict[str, Source]  # Each with its own number of micro-batches.

    @property
    def image_format(self) -> ImageFormat:
        """How the model takes its images, which are of one shape."""
        trunk = self.frozen['vision'].checksums['vision'] if 'vision' in self.frozen else ''
        return ImageFormat.of(self.model.config, trunk).square

    def batch_shapes(self, mesh: Mesh) -> dict[str, Batch]:
        """The shapes on the mesh of each data set's batches (`inputs/pipeline.py`). The data sets may be missing."""
        sharding = meshes.batch_sharding(mesh)

        def shapes(source: Source) -> Batch:
            row = source.empty_row(self.tokenizer, self.image_format)
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((source.batch_size, *x.shape), x.dtype, sharding=sharding), row
            )

        return {name: shapes(source) for name, source in self.sources.items()}

    def read_frozen(self, mesh: Mesh) -> Params:
        """The frozen trees, in the dtype of the computation or quantised, on the mesh."""
        shardings = self._shardings(mesh)
        return {name: bundle.as_kept(source, name, self.model, shardings[name]) for name, source in self.frozen.items()}

    def begin(self, new: Params, frozen: Params, mesh: Mesh) -> Params:
        """The trained trees at a run's first step, float32, on the mesh.

        Args:
          new: all of them, as they were initialised. Those that are trained further are read.
          frozen: the frozen trees.
        """
        shardings, config = self._shardings(mesh), self.model.config
        params = new | {name: x.params(name, jnp.float32, shardings[name]) for name, x in self.start.items()}
        if 'xattn' in params and 'xattn' not in self.start:
            params['xattn'] = config.xattn.begin(params['xattn'], (frozen | params)['lm']['blocks'])
        return params

    def _shardings(self, mesh: Mesh) -> Params:
        return rules.shardings(boxed_shapes(self.model), mesh)


def assemble(config: ConfigDict, device: Any = None, all_here: bool = True) -> Parts:
    """The parts of a run.

    Args:
      device: one of those that will compute. The dtype and the attention's kernel are its own if the config does not
        say. None is one of this machine.
      all_here: False allows a bundle to be missing if the config gives its shape.

    Raises:
      FileNotFoundError, ValueError: a bundle, a tokenizer or a field is missing or does not fit, or a number is out of
        its range.
    """
    check(config)
    sources = {name: source_of(data) for name, data in config.datasets.items()}
    sources = {
        name: dataclasses.replace(source, micro_batches=source.micro_batches or config.micro_batches)
        for name, source in sources.items()
    }
    if config.start:
        fields, found, tokenizer, tag = _from_start(config)
    else:
        fields, found, tokenizer, tag = _from_parts(config, all_here)
    fields |= dict(lora=lora_fields(config))
    model_config = FlamingoConfig.from_json(fields)
    model_config = model_config.at(config.image_size) if config.image_size else model_config
    if config.resampler:
        found['resampler'] = _resampler_of(config.resampler, model_config, found.get('vision'))
    if model_config.lm is None:
        raise UserError('The config has no language model. Set config.lm to a bundle, or config.model.lm to a dict.')
    if model_config.lm.vocab_size != tokenizer.vocab_size:
        raise UserError(
            f'The language model has {model_config.lm.vocab_size} tokens, but its tokenizer has '
            f'{tokenizer.vocab_size}. Set config.model.lm.vocab_size to {tokenizer.vocab_size}.'
        )
    trained = trained_trees(config)
    start = {name: found.pop(name) for name in trained if name in found}
    device = device or jax.devices()[0]
    dtype = jnp.dtype(config.dtype or meshes.usual_dtype(device))
    kernel, quantised = config.attention_kernel or kernel_of(device), quantisation(config, trained)
    model = Flamingo(model_config, dtype, config.remat, attention_kernel=kernel, quantised=quantised)
    if all_here and (without := sorted(set(boxed_shapes(model)) - set(trained) - set(found))):
        raise UserError(
            f'No bundle gives the parameters of {without}. Name a bundle that has them, or add them to config.trained.'
        )
    for name, source in sources.items():
        field, longest = (
            ('length', source.length) if source.documents == 1 else ('window', min(source.length, source.window[0]))
        )
        _, beside = source.row.lengths(source.length, source.images, len(model_config.image_tag))
        if beside > source.length and model_config.lm.positions == 'learned':  # With words for images.
            field, longest = '`length` or `images`', beside
        if longest > model_config.lm.context:
            raise UserError(
                f'Data set {name}: its documents of {longest} tokens exceed the context of {model_config.lm.context}. '
                f'Reduce its {field}.'
            )
    return Parts(model, tokenizer, found, start, trained, tag, sources)


_Found = tuple[dict[str, Any], dict[str, bundle.Bundle], Tokenizer, str | Sequence[int] | None]


def _from_start(config: ConfigDict) -> _Found:
    """(fields of the model's config, tree -> bundle, tokenizer, image tag) of a whole model that is trained further."""
    whole = bundle.read(config.start)
    given = ['tokenizer'] if config.tokenizer else []
    given += ['model'] if FlamingoConfig.from_json(config.model.to_dict()) != FlamingoConfig() else []
    if given:
        raise UserError(
            f'config.start names a whole model, so that {", ".join(given)} must not be set too. Remove one or the '
            'other.'
        )
    if whole.config.lm is None:
        raise UserError(
            f'The bundle {config.start} of config.start has no language model. If it is a trunk, name it in '
            'config.vision.'
        )
    found, tokenizer = dict.fromkeys(whole.checksums, whole), whole.tokenizer()
    if config.lm:
        found['lm'] = bundle.read(config.lm)
        if found['lm'].config.lm != whole.config.lm or found['lm'].tokenizer(whole.image_tag).model != tokenizer.model:
            raise UserError(
                f'config.lm cannot replace the language model of config.start: {config.lm} has another shape or '
                'tokenizer.'
            )
    if config.vision:
        found['vision'] = trunk = bundle.read(config.vision)
        if (trunk.config.vision, trunk.config.image_size) != (whole.config.vision, whole.config.image_size):
            raise UserError(
                f'config.vision cannot replace the trunk of config.start: {config.vision} has another trunk or image '
                'size.'
            )
    return whole.config.to_json(), found, tokenizer, whole.image_tag


def _resampler_of(path: str, model: FlamingoConfig, trunk: bundle.Bundle | None) -> bundle.Bundle:
    """The bundle of `config.resampler`, whose resampler the model can take.

    ValueError: it has none, or one of another shape, or one that was trained on another trunk.
    """
    found = bundle.read(path)
    if 'resampler' not in found.checksums:
        raise UserError(f'config.resampler names {path}, which has no resampler.')

    def shape(c: FlamingoConfig) -> tuple[Any, ...]:
        return c.resampler, c.media_width, c.vision and c.vision.width

    if shape(found.config) != shape(model):
        raise UserError(
            f'The resampler of config.resampler does not fit: {path} has {shape(found.config)}, the model '
            f'{shape(model)} (its config, the width of its latents, that of the features).'
        )
    if trunk and found.checksums.get('vision', trunk.checksums['vision']) != trunk.checksums['vision']:
        raise UserError(
            f'The resampler of {path} was trained on the features of another trunk than {trunk.path}. Train one on '
            'this trunk, or name its trunk in config.vision.'
        )
    return found


def _from_parts(config: ConfigDict, all_here: bool) -> _Found:
    """The same for a new model, whose language model and trunk may be pretrained."""
    fields, found = config.model.to_dict(), {}
    # A text tower reads no images.
    tag = config.image_tag if (config.vision or fields['xattn']) and not fields['contrastive'] else None
    for name in ('lm', 'vision'):
        if not config[name]:
            continue
        try:
            found[name] = bundle.read(config[name])
        except FileNotFoundError:
            if all_here or fields[name] is None:
                raise
            continue
        fields[name] = found[name].config.to_json()[name]
    if 'vision' in found:
        fields['image_size'] = found['vision'].config.image_size
    extra_tokens = ()
    if fields['xattn'] and bridge_from(fields['xattn']).takes_places:
        r = FlamingoConfig.from_json(fields | dict(xattn=None)).media_tokens
        tag, extra_tokens = 'token', extra_tokens_of_prefix(r)
    if 'lm' in found:
        tokenizer = found['lm'].tokenizer(tag, extra_tokens)
    elif all_here or config.tokenizer:
        tokenizer = Tokenizer.read(config.tokenizer, tag, extra_tokens=extra_tokens)
    else:
        tokenizer = MissingTokenizer(fields['lm']['vocab_size'], tag, extra_tokens)
    fields |= dict(image_tag=tokenizer.image_tag, extra_tokens=tokenizer.extra_tokens)
    return fields, found, tokenizer, tag
