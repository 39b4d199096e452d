"""How many images a second one core of this machine decodes and augments, for `plan`'s bound of the host.

    python -m benchmarks.decoding [--seconds=5]

The images are JPEGs of 640 x 480 pixels, the size of COCO's photos, and of 1280 x 960, enlarged from those in
docs/pictures. Each is decoded, fitted to 320 x 320 with a margin, and then mirrored and recoloured, as in training by
the paper's recipe. Beside it stands what libjpeg-turbo alone takes, through PIL at full size. Time is the processor's
own, so that other work on the machine changes it little.
"""

import argparse
import io
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import PIL.Image

from flamingo_jax.inputs import augment
from flamingo_jax.inputs.images import to_frames

T = TypeVar('T')
IMAGES = pathlib.Path(__file__).parents[1] / 'docs' / 'pictures'


def rates(functions: Sequence[Callable[[T], object]], items: Sequence[T], seconds: float) -> list[float]:
    """Items a second that each function takes, all of them in turns, after a first round that does not count."""
    spent, rounds = [0.0] * len(functions), -1
    while sum(spent) < seconds:
        rounds += 1
        for number, function in enumerate(functions):
            begin = time.process_time()
            for item in items:
                function(item)
            spent[number] += (time.process_time() - begin) * (rounds > 0)
    return [rounds * len(items) / of_one for of_one in spent]


def main() -> None:
    """Prints the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=5.0)
    seconds, rng = parser.parse_args().seconds, np.random.default_rng(0)

    def decoded(file: bytes) -> None:
        PIL.Image.open(io.BytesIO(file)).load()

    def fitted(file: bytes) -> np.ndarray:
        return to_frames(file, 320, 'mean')

    def augmented(file: bytes) -> None:
        augment.recolour(augment.mirror(fitted(file)), augment.draw_colours(rng))

    for size in ((640, 480), (1280, 960)):
        files = []
        for path in sorted(IMAGES.glob('*.png')):
            file = io.BytesIO()
            PIL.Image.open(path).convert('RGB').resize(size).save(file, 'JPEG', quality=90)
            files.append(file.getvalue())
        alone, fit, whole = rates((decoded, fitted, augmented), files, seconds)
        print(
            f'{size[0]} x {size[1]}, JPEGs of {sum(map(len, files)) / len(files) / 1000:.0f} kB: '
            f'{whole:.0f} images a second and core, {fit:.0f} without mirror and colours; '
            f'libjpeg-turbo alone {alone:.0f}, so fitted is {fit / alone:.2f} of it'
        )


if __name__ == '__main__':
    main()
