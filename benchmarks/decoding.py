"""How many pictures a second one core of this machine decodes and augments, for `plan`'s bound of the host.

    python benchmarks/decoding.py [--seconds=5]

The pictures are JPEGs of 640 x 480 pixels, the size of COCO's photos, enlarged from those in docs/pictures. Each is
decoded, fitted to 320 x 320 with a margin, mirrored and recoloured, as in training by the paper's recipe. Time is the
processor's own, so that other work on the machine changes it little.
"""

import argparse
import io
import pathlib
import time

import numpy as np
import PIL.Image

from flamingo_jax.inputs import augment
from flamingo_jax.inputs.images import to_frames

PICTURES = pathlib.Path(__file__).parents[1] / 'docs' / 'pictures'


def main() -> None:
    """Prints the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=5.0)
    seconds = parser.parse_args().seconds
    files = []
    for path in sorted(PICTURES.glob('*.png')):
        file = io.BytesIO()
        PIL.Image.open(path).convert('RGB').resize((640, 480)).save(file, 'JPEG', quality=90)
        files.append(file.getvalue())
    rng, done, begin = np.random.default_rng(0), 0, time.process_time()
    while time.process_time() - begin < seconds:
        frames = to_frames(files[done % len(files)], 320, 'mean')
        augment.recolour(augment.mirror(frames), augment.draw_colours(rng))
        done += 1
    size = sum(map(len, files)) / len(files) / 1000
    print(f'{done / (time.process_time() - begin):.0f} pictures a second and core, JPEGs of {size:.0f} kB')


if __name__ == '__main__':
    main()
