"""Flickr30k (Young et al. 2014) in Karpathy's splits: 1,000 test images of 5 captions. Held out in the paper.

The folder has `dataset_flickr30k.json` (caption_datasets.zip) and the images in `flickr30k-images`.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

from flamingo_jax.evaluation.benchmark import Item
from flamingo_jax.evaluation.datasets.captions import Karpathy
from flamingo_jax.evaluation.published import find


@dataclasses.dataclass
class Flickr30k(Karpathy):
    """The splits are train, val and test."""

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The images; an id is the image's file name."""
        images = find(folder, 'flickr30k-images', 'flickr30k_images', 'images')
        yield from self.karpathy(find(folder, 'dataset_flickr30k.json'), split, 'filename', images)
