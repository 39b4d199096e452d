"""Reads the official annotation files that lie in a folder, and prints how many questions each split has.

    python -m tests.evaluation.check_official_files FOLDER

FOLDER has a folder for each set, under the name of its config (`vqav2`, `next_qa`, ...), with the files as they are
published, unpacked. Videos and images are not needed. A split whose files are not there is passed over. One that is
refused, though it is official, makes the command fail, and so does one that has answers to a part of its questions.

The annotations are not ours to copy, so that none is in this repository.
"""

import contextlib
import importlib
import pathlib
import sys
import tempfile
from collections.abc import Iterator

from flamingo_jax.errors import UserError

# The splits of each set, and the folders of its videos and images, of which an empty one will do.
SPLITS = dict(
    coco=('train', 'train2014', 'val', 'test', 'test2014'),
    flickr30k=('train', 'val', 'test'),
    vqav2=('train', 'val', 'test-dev', 'test'),
    ok_vqa=('train', 'val'),
    textvqa=('train', 'val', 'test'),
    vizwiz=('train', 'val', 'test'),
    visdial=('train', 'val'),
    hateful_memes=('train', 'dev', 'dev_seen', 'dev_unseen', 'test', 'test_seen', 'test_unseen'),
    imagenet=('val',),  # A class of the training split is known by its folder of images.
    kinetics700=('train', 'val', 'test'),
    vatex=('train', 'val', 'test', 'private_test'),
    youcook2=('train', 'val'),
    msvd_qa=('train', 'val', 'test'),
    msrvtt_qa=('train', 'val', 'test'),
    ivqa=('train', 'val', 'test'),
    rareact=('test',),
    next_qa=('train', 'val', 'test'),
    star=('train', 'val', 'test'),
)
FOLDERS = dict(
    flickr30k=('images',),
    imagenet=('ILSVRC/Data/CLS-LOC/val',),
    kinetics700=('train', 'val', 'test'),
    msrvtt_qa=('videos',),
    next_qa=('videos',),
    star=('videos',),
)


@contextlib.contextmanager
def without_videos(name: str, folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a folder with the same files, and with the folders that a set's reader looks for, empty."""
    with tempfile.TemporaryDirectory() as temporary:
        here = pathlib.Path(temporary)
        for path in folder.iterdir():
            (here / path.name).symlink_to(path.resolve())
        for empty in FOLDERS.get(name, ()):
            if not (here / empty).exists():
                (here / empty).mkdir(parents=True)
        yield here


def check(name: str, folder: pathlib.Path) -> Iterator[tuple[str, bool]]:
    """A line for each split of a set, and whether it is as it should be."""
    of = importlib.import_module(f'experiments.evaluate.{name}').get_config().tasks[name].asks
    with without_videos(name, folder) as here:
        for split in SPLITS[name]:
            try:
                items = of()._read(here, split)
            except FileNotFoundError as error:
                missing = str(error).replace(f'{here}/', '').split('. ')[0]
                yield f'{name} {split}: not read. {missing}.', True
                continue
            except UserError as error:
                yield f'{name} {split}: REFUSED. {str(error).replace(str(here), str(folder))}', False
                continue
            answered = sum(item.answer is not None or item.references is not None for item in items)
            files = len({item.file for item in items})
            line = (
                f'{name} {split}: {len(items):,} questions about {files:,} images or videos, {answered:,} with answers'
            )
            yield line, answered in (0, len(items))


def main(arguments: list[str]) -> int:
    """Prints a line for each split that is there; 1 if one is not as it should be."""
    if len(arguments) != 1 or not pathlib.Path(arguments[0]).is_dir():
        print(__doc__)
        return 2
    there = [path for path in sorted(pathlib.Path(arguments[0]).iterdir()) if path.is_dir()]
    for path in there:
        if path.name not in SPLITS:
            print(f'{path.name}: no set has this name. The sets are {", ".join(SPLITS)}.')
    right = True
    for path in there:
        for line, as_it_should_be in check(path.name, path) if path.name in SPLITS else ():
            print(line)
            right = right and as_it_should_be
    return 0 if right else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
