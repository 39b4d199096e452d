"""VizWiz (Gurari et al. 2018): questions of blind people about their own photographs, 10 answers each. Held out.

The folder has `train.json`, `val.json` and `test.json` (or in `Annotations`), and the images in folders of these
names. The paper's split is test-dev, a part of test, whose answers only the evaluation server has.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from flamingo_jax.evaluation.benchmark import Item
from flamingo_jax.evaluation.datasets.vqa import VQA, types_of
from flamingo_jax.evaluation.published import by_id, find, records, split_file


@dataclasses.dataclass
class VizWiz(VQA):
    """The splits are train, val and test."""

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The questions in order; an id is the image's file name, since each image has one question."""
        split = split_file(split, dict(train='train', val='val', test='test'))
        file = find(folder, f'{split}.json', f'Annotations/{split}.json')
        needed = ('image', 'question') if split == 'test' else ('image', 'question', 'answers')
        for id, record in by_id(records(file, *needed), 'image', file).items():
            path = folder / split / id
            yield self.item(id, path, record['question'], record.get('answers', ()), types_of(record))

    def results(self, answers: Mapping[str, str]) -> Any:
        """As EvalAI takes them."""
        return [dict(image=id, answer=answer) for id, answer in answers.items()]
