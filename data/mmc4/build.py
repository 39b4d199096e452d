"""Interleaved pages from MMC4, or from the tars that OpenFlamingo made of it.

    python -m data.mmc4.build --source="mmc4/*.jsonl.zip" --images=IMAGES --out=DATA
    python -m data.mmc4.build --source="shards/*.tar" --out=DATA --name=open_flamingo

IMAGES has the images by their names in MMC4 (image_name), in any folders, or as img2dataset stored them.
"""

from data import published

if __name__ == '__main__':
    published.start(__doc__)

from flamingo_jax.building.readers import mmc4, open_flamingo
from flamingo_jax.building.readers.builder import PublishedBuilder


class Mmc4(PublishedBuilder):
    """Interleaved pages of MMC4."""

    READERS = {'.zip': mmc4.read, '.jsonl': mmc4.read, '.tar': open_flamingo.read}


if __name__ == '__main__':
    published.build(Mmc4)
