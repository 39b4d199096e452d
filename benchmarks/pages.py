"""Pages and images a second of one core, through the steps of a build of web pages:

    python -m benchmarks.pages 'RAW/warc/en-*.warc.gz'

Seconds are those of the processor, so that a busy machine changes little.
"""

import glob
import io
import sys
import time
from collections.abc import Callable, Sequence

import PIL.Image

from benchmarks.decoding import rates
from flamingo_jax.building import duplicates, warc
from flamingo_jax.building.image_checks import LookError, look_at
from flamingo_jax.building.page import PageError, read_page
from flamingo_jax.building.pages import read_texts
from flamingo_jax.building.rules import DEFAULT

SECONDS = 5.0  # Of the processor for each comparison, at least.


def report(functions: dict[str, Callable], items: Sequence) -> None:
    """Prints how many items a second each function takes."""
    for name, rate in zip(functions, rates(list(functions.values()), items, SECONDS), strict=True):
        print(f'{name:32} {rate:8.0f} a second')


def decode(data: bytes) -> None:
    """PIL's own decoding (libjpeg-turbo, zlib), at full size."""
    PIL.Image.open(io.BytesIO(data)).convert('RGB')


def looked(data: bytes) -> None:
    """What a build does with an image."""
    try:
        look_at(data)
    except LookError:
        pass


def read(page: warc.Response) -> None:
    """HTML to texts and images."""
    try:
        read_page(page.data, page.url, page.charset)
    except PageError:
        pass


def filtered(page: warc.Response) -> None:
    """The same, with the rules of texts and the keys of duplicates."""
    try:
        read = read_texts(page, DEFAULT)
    except PageError:
        return
    for part in read.parts:
        duplicates.near_keys('\n'.join(node.text for node in part.texts))


def main() -> None:
    """Measures what the files hold."""
    paths = sorted(glob.glob(sys.argv[1]))
    if not paths:
        sys.exit(f'There is no file {sys.argv[1]}. data/debian_pages/build.py writes some to RAW/warc.')
    begin = time.process_time()
    found = [one for path in paths for one in warc.read_warc(path) if isinstance(one, warc.Response)]
    print(f'{"responses read from WARC files":32} {len(found) / (time.process_time() - begin):8.0f} a second')
    pages = [one for one in found if one.type in warc.HTML]
    report({'pages read': read, 'pages read, filtered, keyed': filtered}, pages)
    for kind in ('image/jpeg', 'image/png'):
        images = [one.data for one in found if one.type == kind]
        report({f'{kind} looked at': looked, f'{kind} decoded by PIL alone': decode}, images)


if __name__ == '__main__':
    main()
