"""Retrieval across artists by a trunk alone: for each thing that one artist drew, the other's most similar drawing.

    python -m research.analyses.artists --data=DATA/picture_dictionary/full/1.0.0 --vision=BUNDLE_OR_WORKDIR,... \
        [--sizes=96,160,224] [--query=noto] [--among=twemoji]

A drawing is the mean of its features, standardised as in the bundle, of length 1. All drawings of all splits are the
candidates. Prints the share that is found, of all things and of those of the splits that training never showed.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('data', None, 'Folder of the picture dictionary.', required=True)
    flags.DEFINE_list('vision', None, 'Bundles with trunks, or workdirs of contrastive runs.', required=True)
    flags.DEFINE_list('sizes', ['160', '224'], 'Heights and widths in pixels.')
    flags.DEFINE_string('query', 'noto', 'The artist whose drawings are asked about.')
    flags.DEFINE_string('among', 'twemoji', 'The artist among whose drawings is searched.')
    commands.start(__doc__)

import dataclasses
import functools

import jax
import numpy as np

from flamingo_jax.checkpoints import bundle
from flamingo_jax.checkpoints.run_format import open_run
from flamingo_jax.evaluation import rices
from flamingo_jax.files import as_path
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo

SPLITS = ('train', 'validation', 'test')


def trunk_of(path: str) -> tuple[FlamingoConfig, dict]:
    """The config and the trunk of a bundle, or of a run that trained it."""
    if (as_path(path) / 'run.json').is_file():
        run = open_run(as_path(path))
        config, params = run.config, run.params('vision', np.float32)
    else:
        found = bundle.read(path)
        config, params = found.config, found.params('vision', np.float32)
    return FlamingoConfig(vision=config.vision, image_size=config.image_size), params


def main() -> None:
    """Prints a row for each trunk and size."""
    f = flags.FLAGS
    print('| trunk | pixels | found | of | found, held out | of |\n|---|---|---|---|---|---|')
    for path in f.vision:
        config, params = trunk_of(path)
        for size in map(int, f.sizes):
            model = Flamingo(dataclasses.replace(config, image_size=size))
            encode = functools.partial(_encode, jax.jit(model.features), params)
            sets = [ImageSet(f.data, split, ImageFormat(size, config.fit)) for split in SPLITS]
            rows = {}
            for style in (f.query, f.among):
                some = [(number, one, p) for number, one in enumerate(sets) for p in one.only([style]).images]
                vectors = rices.pool(encode, (one.frames(p) for _, one, p in some), len(some))
                rows[style] = {
                    p.concept: (vector, number > 0) for (number, _, p), vector in zip(some, vectors, strict=True)
                }
            both = sorted(rows[f.query].keys() & rows[f.among].keys())
            a, b = (np.stack([rows[style][concept][0] for concept in both]) for style in (f.query, f.among))
            right = (a @ b.T).argmax(axis=1) == np.arange(len(both))
            held = np.array([rows[f.query][concept][1] for concept in both])
            found = f'{right.mean():.3f} | {len(both)} | {right[held].mean():.3f} | {held.sum()}'
            print(f'| {path} | {size} | {found} |', flush=True)


def _encode(features, params, batch):
    return np.asarray(features({'vision': params}, batch[:, None]))[:, 0]


if __name__ == '__main__':
    main()
