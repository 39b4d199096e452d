"""Interleaved pages from OBELICS, OmniCorpus or MINT-1T.

    python -m data.obelics.build --source="OBELICS/*.parquet" --images=IMAGES --out=DATA
    python -m data.obelics.build --source="MINT-1T-PDF/*.tar" --out=DATA --name=mint1t

IMAGES is what img2dataset made of the URLs: its tars, or its files. MINT-1T's PDF and ArXiv tars hold their own.
"""

from data import published

if __name__ == '__main__':
    published.start(__doc__)

from flamingo_jax.building.readers import mint1t, obelics
from flamingo_jax.building.readers.builder import PublishedBuilder


class Obelics(PublishedBuilder):
    """Interleaved pages of OBELICS, OmniCorpus or MINT-1T."""

    READERS = {'.parquet': obelics.read, '.arrow': obelics.read, '.tar': mint1t.read}


if __name__ == '__main__':
    published.build(Obelics)
