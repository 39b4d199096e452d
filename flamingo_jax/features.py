"""Computes the frozen trunk's features of a picture set once, so that training and evaluation read them instead of pixels.

    python -m flamingo_jax.features --data=DATA_DIR --vision=BUNDLE --out=DIR

Writes for each split OUT/SPLIT.npy, float16 [records t s d_v], and OUT/SPLIT.json, which says of what and by which trunk.
A finished split is not computed again.
"""

import functools
import json
import pathlib

import jax
import numpy as np
from absl import app, flags, logging
from tqdm import tqdm

from flamingo_jax.files import write_whole
from flamingo_jax.inference import bundle
from flamingo_jax.inputs.images import to_frames
from flamingo_jax.inputs.source import open_split
from flamingo_jax.model.flamingo import Flamingo

BATCH = 32


def compute(data: str, vision: bundle.Bundle, out: str, splits: list[str]) -> None:
    """Writes the features of some splits.

    Args:
      data: a prepared picture set; all pictures of a split must have one number of frames.
      vision: the trunk; pictures are read at its `image_size`.
      out: folder to write into.

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
            trunk=vision.checksums['vision'],
            image_size=vision.config.image_size,
            vision=vision.config.to_json()['vision'],  # Which of the trunk's features: its parameters do not say.
        )
        done = folder / f'{split}.json'
        if done.is_file() and json.loads(done.read_text()) == about:
            continue
        done.unlink(missing_ok=True)
        features, progress = None, tqdm(total=len(source), unit=' pictures', desc=split)
        for begin in range(0, len(source), BATCH):
            frames = [
                to_frames(list(source[i]['frames']), vision.config.image_size, vision.config.vision.fit)
                for i in range(begin, min(begin + BATCH, len(source)))
            ]
            used, padding = len(frames), BATCH - len(frames)
            batch = np.asarray(trunk(np.stack(frames + [frames[0]] * padding)[:, None]))[:used, 0]
            if features is None:
                features = np.lib.format.open_memmap(
                    folder / f'{split}.npy', 'w+', np.float16, (len(source), *batch.shape[1:])
                )
            features[begin : begin + used] = batch
            progress.update(used)
        progress.close()
        features.flush()
        write_whole(done, f'{json.dumps(about)}\n'.encode())  # Last: what it stands beside is whole.


def main(argv):
    """Reads the flags and computes."""
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells its every step.
    compute(flags.FLAGS.data, bundle.read(flags.FLAGS.vision), flags.FLAGS.out, flags.FLAGS.splits)


if __name__ == '__main__':
    flags.DEFINE_string('data', None, 'Folder of a prepared picture set.', required=True)
    flags.DEFINE_string('vision', None, 'Bundle that holds the trunk.', required=True)
    flags.DEFINE_string('out', None, 'Folder for the features.', required=True)
    flags.DEFINE_list('splits', ['train', 'validation', 'test'], 'Splits to compute.')
    app.run(main)
