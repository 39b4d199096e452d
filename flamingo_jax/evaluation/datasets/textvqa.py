"""TextVQA (Singh et al. 2019): 5,000 validation questions about text in images, 10 answers each. Held out.

The folder has `TextVQA_0.5.1_train.json`, `TextVQA_0.5.1_val.json` and the images of both in `train_images`; the test
split has `TextVQA_0.5.1_test.json` and `test_images`.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from flamingo_jax.evaluation.benchmark import Item
from flamingo_jax.evaluation.datasets.vqa import VQA, numbered
from flamingo_jax.evaluation.published import by_id, find, records, split_file


@dataclasses.dataclass
class TextVQA(VQA):
    """The splits are train, val and test."""

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The questions in order."""
        images = folder / split_file(split, dict(train='train_images', val='train_images', test='test_images'))
        file = find(folder, f'TextVQA_0.5.1_{split}.json')
        rows = records(file, 'question_id', 'image_id', 'question', at='data')
        for id, record in by_id(rows, 'question_id', file).items():
            answers = record.get('answers', ())
            yield self.item(id, images / f'{record["image_id"]}.jpg', record['question'], answers)

    def results(self, answers: Mapping[str, str]) -> Any:
        """As EvalAI takes them."""
        return numbered(answers)
