"""VQAv2 (Goyal et al. 2017): 214,354 validation questions about COCO's images, 10 answers each. DEV in the paper.

The folder has the files of visualqa.org (`v2_OpenEnded_mscoco_val2014_questions.json`,
`v2_mscoco_val2014_annotations.json`, ...) and the images in `train2014`, `val2014` and `test2015`. The paper's split
is test-dev, whose answers only the evaluation server has.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from flamingo_jax.evaluation.benchmark import Item
from flamingo_jax.evaluation.datasets.vqa import TwoFiles, numbered
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.published import find, on_disk, records, split_file

# Split -> the part of COCO in the names of its files.
PARTS = {'train': 'train2014', 'val': 'val2014', 'test': 'test2015', 'test-dev': 'test-dev2015'}


@dataclasses.dataclass
class VQAv2(TwoFiles):
    """The splits are train, val, test-dev and test."""

    dev_size: int = 1024

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The questions in order."""
        part = split_file(split, PARTS)
        questions = f'v2_OpenEnded_mscoco_{part}_questions.json'
        annotations = '' if 'test' in split else f'v2_mscoco_{part}_annotations.json'
        coco = part.replace('-dev', '')
        yield from self.two_files(
            folder, questions, annotations, images=folder / coco, image=f'COCO_{coco}_{{:012d}}.jpg'
        )

    def prepare(self, pools: Pools) -> None:
        """For test-dev, also reads the ids of all test questions, which the evaluation server asks for."""
        super().prepare(pools)
        self._all: list[str] = [item.id for item in self._queries]
        if self.query_split == 'test-dev':
            name = 'v2_OpenEnded_mscoco_test2015_questions.json'
            file = find(on_disk(self.data or pools.data), name, f'annotations/{name}')
            self._all = [str(record['question_id']) for record in records(file, 'question_id', at='questions')]

    def results(self, answers: Mapping[str, str]) -> Any:
        """As EvalAI takes them: it wants an answer to every question, so the others are empty."""
        return numbered({id: answers.get(id, '') for id in self._all})
