"""Computes the frozen trunk's features of a data set once, so that training and evaluation read them instead of pixels.

    python -m flamingo_jax.features --data=DATA_DIR --vision=BUNDLE --out=DIR

The data set is an image set, or stored documents (a prepared folder, or a .jsonl file). Writes for each split
OUT/SPLIT.npy, float16 [images views t s d_v], OUT/SPLIT.digests.json, by which readers verify it, and OUT/SPLIT.json,
which describes the data set and the trunk; for documents also OUT/SPLIT.begins.npy, the number of each document's first
image. The first view is the image itself. A damaged image of documents gets NaN; a disk that fails ends the
command, which goes on when it is started again. With `--views=4` three random views of `inputs/augment.py` follow, for
training on few images. Finished splits are not computed again, and one that was stopped goes on.
"""

from absl import flags

from flamingo_jax import commands
from flamingo_jax.errors import UserError

if __name__ == '__main__':
    flags.DEFINE_string('data', None, 'Folder of a prepared data set, or the .jsonl file of documents.', required=True)
    flags.DEFINE_string('vision', None, 'Bundle with the trunk.', required=True)
    flags.DEFINE_string('out', None, 'Folder for the features.', required=True)
    flags.DEFINE_list('splits', [], 'Splits to compute; none named are all, and of a .jsonl file the split train.')
    flags.DEFINE_integer('frames', 1, 'Frames per image of documents; more than 1 are videos.', lower_bound=1)
    flags.DEFINE_integer(
        'image_size', 0, "Height and width of the images in pixels; 0 is that of the trunk's bundle.", lower_bound=0
    )
    flags.DEFINE_integer('views', 1, 'Views of each image, itself included.', lower_bound=1)
    commands.start(__doc__)

import concurrent.futures
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from flamingo_jax.checkpoints import bundle
from flamingo_jax.files import Path, as_path, reserve, whole, write_whole
from flamingo_jax.inputs import augment
from flamingo_jax.inputs.images import Frames, ImageError, ImageFormat, to_frames
from flamingo_jax.inputs.sources.documents import holds_image, open_records, read_stored, splits_of
from flamingo_jax.inputs.sources.features import fingerprint
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.parallel import digests

BATCH = 32
NOTED = 32  # Batches after which it is noted how far a split is.


def compute(
    data: str,
    vision: bundle.Bundle,
    out: str,
    splits: Sequence[str] = (),
    views: int = 1,
    frames: int = 1,
    image_size: int = 0,
) -> None:
    """Writes the features of some splits.

    Args:
      data: a prepared data set, or a .jsonl file; all images of a split must have one number of frames.
      vision: the trunk.
      out: folder to write into.
      splits: names of splits, () for all; for a .jsonl file, the one name that training will use, () for train.
      views: number of views of each image, itself included.
      frames: frames of each image of documents; more than 1 are videos. An image set has its own.
      image_size: height and width of the images, as for `config.image_size`; 0 is the trunk's.

    Raises:
      FileNotFoundError, ValueError: there is no such trunk, data set or split, or an image of an image set is
        damaged.
        In documents, a damaged image gets NaN features, and so does one whose features are too large for float16.
      OSError: a file could not be read in several tries; the next call goes on from there.
    """
    if vision.config.vision is None:
        raise UserError(f'The bundle {vision.path} has no vision trunk. Give one that has, such as a converted CLIP.')
    vision = dataclasses.replace(vision, config=vision.config.at(image_size)) if image_size else vision
    image_format = ImageFormat.of(vision.config, vision.checksums['vision']).square
    found = {split: _open(open_records(data, split), image_format, frames) for split in splits or splits_of(data)}
    model = Flamingo(vision.config)
    params = {'vision': bundle.as_kept(vision, 'vision', model)}
    trunk = functools.partial(jax.jit(model.features), params)  # As an argument: no copy of it is in the program.
    folder = as_path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for split, source in found.items():
        about = description(source.records, data, views, vision)
        if source.begins is not None:
            about['frames'] = frames
        done = folder / f'{split}.json'
        if _said(done) == about:
            continue
        done.unlink(missing_ok=True)
        sums = {}
        if not source.images:
            raise UserError(f'The split {split!r} of {data} has no images. Remove it from --splits.')
        with whole(folder / f'{split}.npy', resumed=True) as file:
            _write(file, about, source, trunk, blank=image_format.blank(frames), name=split)
            sums |= digests.of_files({f'{split}.npy': file})
        _note(file).unlink()
        if source.begins is not None:
            with whole(folder / f'{split}.begins.npy') as file:
                np.save(file, source.begins)
                sums |= digests.of_files({f'{split}.begins.npy': file})
        digests.write(folder / f'{split}.{digests.FILE}', sums)
        write_whole(done, f'{json.dumps(about)}\n'.encode())  # Written last, so that it marks complete features.


def description(records: Sequence[dict[str, Any]], data: str, views: int, vision: bundle.Bundle) -> dict[str, Any]:
    """What SPLIT.json says of the features of some records, which are stored in `data`."""
    image_format = ImageFormat.of(vision.config, vision.checksums['vision']).square
    return dict(
        data=fingerprint(records),
        path=str(data),
        views=views,
        trunk=image_format.trunk,
        image_size=image_format.size,
        fit=image_format.fit,
        vision=json.loads(image_format.vision),
    )


@dataclasses.dataclass(frozen=True)
class _Found:
    """The images of a split, by number."""

    records: Sequence[dict[str, Any]]
    images: int
    frames: Callable[[int], Frames | None]  # None for an image that is damaged.
    begins: np.ndarray | None  # The number of each document's first image.


def _write(
    file: pathlib.Path,
    about: dict[str, Any],
    source: _Found,
    trunk: Callable[[np.ndarray], jax.Array],
    blank: Frames,
    name: str,
) -> None:
    """Writes the features of a split, with a bar of that name; `blank` stands for an image that cannot be read.

    Beside `file` it is noted how many are done, and what they are about. If that is the same, the next call goes on.
    """
    note, views = _note(file), about['views']
    total = source.images * views
    noted = _said(note) if file.is_file() else {}
    done, left_out = noted['done'] if noted.get('about') == about else 0, 0
    features = np.lib.format.open_memmap(file, 'r+') if done else None
    if not done:
        note.unlink(missing_ok=True)  # What it describes is about to be replaced.
    with (
        tqdm(total=total, initial=done, unit=' images', desc=name) as progress,
        concurrent.futures.ThreadPoolExecutor() as decoders,
    ):
        for begin in range(done, total, BATCH):
            numbers = range(begin, min(begin + BATCH, total))
            shown = list(decoders.map(lambda number: _view(source.frames, *divmod(number, views)), numbers))
            used, blank = len(shown), next((frames for frames in shown if frames is not None), blank)
            readable = np.array([frames is not None for frames in shown])
            shown = [blank if frames is None else frames for frames in shown] + [blank] * (BATCH - used)
            with np.errstate(over='ignore'):
                batch = np.array(trunk(np.stack(shown)[:, None]))[:used, 0].astype(np.float16)
            good = readable & np.isfinite(batch).all(axis=tuple(range(1, batch.ndim)))
            batch[~good] = np.nan
            if not good.all():
                left_out += used - int(good.sum())
                progress.set_postfix(left_out=left_out)
            if features is None:
                shape = (source.images, views, *batch.shape[1:])
                features = np.lib.format.open_memmap(file, 'w+', np.float16, shape)
                reserve(file)
            features.reshape(-1, *batch.shape[1:])[begin : begin + used] = batch
            progress.update(used)
            if begin // BATCH % NOTED == NOTED - 1:
                features.flush()
                write_whole(note, json.dumps(dict(about=about, done=begin + used)).encode())
    features.flush()
    write_whole(note, json.dumps(dict(about=about, done=total)).encode())


def _said(file: Path) -> dict[str, Any]:
    """What a JSON file says; {} if it is absent or cut short."""
    try:
        said = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _note(file: pathlib.Path) -> pathlib.Path:
    return file.with_name(f'{file.name}.json')


def _open(records: Sequence[dict[str, Any]], image_format: ImageFormat, frames: int) -> _Found:
    size, fit = image_format.size, image_format.fit
    if 'images' not in records[0]:
        return _Found(records, len(records), lambda i: to_frames(list(records[i]['frames']), size, fit), None)
    counts = [
        sum(map(holds_image, records[i]['images']))
        for i in tqdm(range(len(records)), unit=' documents', desc='counting images', leave=False)
    ]
    begins = np.cumsum([0, *counts])

    def read(number: int) -> Frames | None:
        document = int(np.searchsorted(begins, number, side='right')) - 1
        image = [image for image in records[document]['images'] if holds_image(image)][number - begins[document]]
        try:
            return read_stored(image, frames, image_format)
        except ImageError:
            return None

    return _Found(records, int(begins[-1]), read, begins[:-1])


def _view(read: Callable[[int], Frames | None], image: int, number: int) -> Frames | None:
    frames = read(image)
    if number and frames is not None:
        return augment.view(frames, np.random.default_rng((image, number)))
    return frames


def main() -> None:
    """Computes the features that the flags describe."""
    f = flags.FLAGS
    how = dict(splits=f.splits, views=f.views, frames=f.frames, image_size=f.image_size)
    compute(f.data, bundle.read(f.vision), f.out, **how)


if __name__ == '__main__':
    main()
