"""A small data set of one's own, and how its disk fails."""

import json
import pathlib

import PIL.Image


def documents(folder: pathlib.Path, *before: str) -> pathlib.Path:
    """own.jsonl in a new folder: images with a word, and texts before them, beside the folder `images`."""
    (folder / 'images').mkdir(parents=True)
    lines = []
    for i in range(16):
        PIL.Image.new('RGB', (8, 8), (15 * i, 0, 0)).save(folder / f'images/{i}.png')
        lines.append([*before, {'image': f'images/{i}.png'}, f'word {i}'])
    (folder / 'own.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    return folder


def break_disk(own: pathlib.Path) -> None:
    """From now on images can be opened, and not read: the first byte of a process is no memory."""
    for image in (own / 'images').iterdir():
        image.rename(own / image.name)
        image.symlink_to('/proc/self/mem')


def repair_disk(own: pathlib.Path) -> None:
    """They can be read again."""
    for image in (own / 'images').iterdir():
        if image.is_symlink():
            (own / image.name).replace(image)
