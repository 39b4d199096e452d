"""Images with texts, from webdataset tars, CC3M, CC12M, LAION, COYO, DataComp or COCO.

    python -m data.pairs.build --source="cc12m/*.tar" --out=DATA --name=cc12m
    python -m data.pairs.build --source=Train_GCC-training.tsv --images=IMAGES --out=DATA --name=cc3m
    python -m data.pairs.build --source="laion/*.parquet" --images=IMAGES --out=DATA --name=laion
    python -m data.pairs.build --source=captions_train2014.json --images=train2014 --out=DATA --name=coco

Tars (of img2dataset) hold their images. For lists of URLs, IMAGES is what img2dataset stored, as tars or files.
"""

from data import published

if __name__ == '__main__':
    published.start(__doc__)

from flamingo_jax.building.readers import coco_captions, url_lists, webdataset
from flamingo_jax.building.readers.builder import PublishedBuilder


class Pairs(PublishedBuilder):
    """Images with texts."""

    READERS = {
        '.tar': webdataset.read,
        '.tsv': url_lists.read_tsv,
        '.parquet': url_lists.read_parquet,
        '.json': coco_captions.read,
    }


if __name__ == '__main__':
    published.build(Pairs)
