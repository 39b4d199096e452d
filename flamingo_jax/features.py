"""Computes the frozen trunk's features of a picture set once, so that training and evaluation read them instead of pixels.

    python -m flamingo_jax.features --data=DATA_DIR --vision=BUNDLE --out=DIR

Writes for each split OUT/SPLIT.npy, float16 [records views t s d_v], and OUT/SPLIT.json, which says of what and by which
trunk. The first view of a picture is the picture; with `--views=4` three random ones of `inputs/augment.py` follow, for training
on few pictures. A finished split is not computed again.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('data', None, 'Folder of a prepared picture set.', required=True)
    flags.DEFINE_string('vision', None, 'Bundle that holds the trunk.', required=True)
    flags.DEFINE_string('out', None, 'Folder for the features.', required=True)
    flags.DEFINE_list('splits', ['train', 'validation', 'test'], 'Splits to compute.')
    flags.DEFINE_integer('views', 1, 'Views of each picture, itself included.', lower_bound=1)
    commands.start(__doc__)

import functools
import json
import pathlib

import jax
import numpy as np
from tqdm import tqdm

from flamingo_jax.files import write_whole
from flamingo_jax.inference import bundle
from flamingo_jax.inputs import augment
from flamingo_jax.inputs.images import to_frames
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo

BATCH = 32


def compute(data: str, vision: bundle.Bundle, out: str, splits: list[str], views: int = 1) -> None:
    """Writes the features of some splits.

    Args:
      data: a prepared picture set; all pictures of a split must have one number of frames.
      vision: the trunk; pictures are read at its `image_size`.
      out: folder to write into.
      views: of each picture, itself included.

    Raises:
      FileNotFoundError, ValueError: no such data set or split, or pictures that cannot be read, by their number.
    """
    records = {split: open_split(data, split) for split in splits}
    model, params = Flamingo(vision.config), {'vision': vision.params('vision')}
    trunk = jax.jit(functools.partial(model.features, params))
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for split, source in records.items():
        about = dict(
            data=str(data),
            records=len(source),
            views=views,
            trunk=vision.checksums['vision'],
            image_size=vision.config.image_size,
            vision=vision.config.to_json()['vision'],  # Which of the trunk's features: its parameters do not say.
        )
        done = folder / f'{split}.json'
        if done.is_file() and json.loads(done.read_text()) == about:
            continue
        done.unlink(missing_ok=True)
        features, progress = None, tqdm(total=len(source) * views, unit=' pictures', desc=split)

        for begin in range(0, len(source) * views, BATCH):
            numbers = range(begin, min(begin + BATCH, len(source) * views))
            frames = [_view(source, *divmod(number, views), vision.config) for number in numbers]
            used, padding = len(frames), BATCH - len(frames)
            batch = np.asarray(trunk(np.stack(frames + [frames[0]] * padding)[:, None]))[:used, 0]
            if features is None:
                features = np.lib.format.open_memmap(
                    folder / f'{split}.npy', 'w+', np.float16, (len(source), views, *batch.shape[1:])
                )
            features.reshape(-1, *batch.shape[1:])[begin : begin + used] = batch
            progress.update(used)
        progress.close()
        features.flush()
        write_whole(done, f'{json.dumps(about)}\n'.encode())  # Last: what it stands beside is whole.


def _view(source, record: int, number: int, config: FlamingoConfig) -> np.ndarray:
    frames = to_frames(list(source[record]['frames']), config.image_size, config.vision.fit)
    return augment.view(frames, np.random.default_rng((record, number))) if number else frames


def main() -> None:
    """Computes what the flags say."""
    compute(flags.FLAGS.data, bundle.read(flags.FLAGS.vision), flags.FLAGS.out, flags.FLAGS.splits, flags.FLAGS.views)


if __name__ == '__main__':
    main()
