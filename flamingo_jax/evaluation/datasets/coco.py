"""COCO captions (Chen et al. 2015) in Karpathy's splits: 5,000 test images of 5 captions. DEV in the paper.

The folder has `dataset_coco.json` (caption_datasets.zip) and the images in `train2014` and `val2014`. The split
`test2014` is that of COCO's evaluation server, without captions: `image_info_test2014.json` and `test2014`.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from flamingo_jax.evaluation.benchmark import Item
from flamingo_jax.evaluation.datasets.captions import Karpathy
from flamingo_jax.evaluation.published import by_id, find, records


@dataclasses.dataclass
class COCO(Karpathy):
    """The splits are train, train2014 (without restval), val, test and test2014."""

    dev_size: int = 5000

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The images; an id is COCO's image id."""
        if split == 'test2014':
            file = find(folder, 'image_info_test2014.json', 'annotations/image_info_test2014.json')
            for id, record in by_id(records(file, 'id', 'file_name', at='images'), 'id', file).items():
                yield self.item(id, folder / split / record['file_name'], ())
        else:
            yield from self.karpathy(find(folder, 'dataset_coco.json'), split, 'cocoid', folder)

    def results(self, answers: Mapping[str, str]) -> Any:
        """As COCO's evaluation server takes them."""
        return [dict(image_id=int(id), caption=caption) for id, caption in answers.items()]
