"""OK-VQA (Marino et al. 2019): 5,046 validation questions that need knowledge of the world. DEV in the paper.

The folder has `OpenEnded_mscoco_val2014_questions.json`, `mscoco_val2014_annotations.json` and those of train2014, and
COCO's images in `train2014` and `val2014`. The references are the field `answer`, stemmed by the set's authors.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

from flamingo_jax.evaluation.benchmark import Item
from flamingo_jax.evaluation.datasets.vqa import TwoFiles
from flamingo_jax.evaluation.published import split_file


@dataclasses.dataclass
class OKVQA(TwoFiles):
    """The splits are train and val."""

    dev_size: int = 1024

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The questions in order."""
        part = split_file(split, dict(train='train2014', val='val2014'))
        questions, annotations = f'OpenEnded_mscoco_{part}_questions.json', f'mscoco_{part}_annotations.json'
        yield from self.two_files(
            folder, questions, annotations, images=folder / part, image=f'COCO_{part}_{{:012d}}.jpg'
        )
