"""What sets of questions about images share that are scored by VQA accuracy: several annotators answer each question.

Also the format of VQA's own files, in which questions and annotations are two files.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation import metrics
from flamingo_jax.evaluation.benchmark import Benchmark, Item, Shown
from flamingo_jax.evaluation.metrics import mean_in_percent
from flamingo_jax.evaluation.metrics.vqa import Entry
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.published import Record, by_id, find, most_frequent, records


@dataclasses.dataclass
class VQA(Benchmark):
    """Questions with the answers of several annotators."""

    query_split: str = 'val'
    accuracy: str = 'vqa'  # Or another version in metrics/, such as vqa_2016.

    ids_of_all_splits: ClassVar[bool] = True

    def prepare(self, pools: Pools) -> None:
        """ValueError also for a version of VQA accuracy that there is not."""
        metrics.find(self.accuracy)
        super().prepare(pools)

    def metric(self, predictions: Mapping[str, str], references: Mapping[str, Any]) -> metrics.Scored:
        """VQA accuracy, in the version of the field `accuracy`."""
        return metrics.score(self.accuracy, predictions, references)

    @property
    def metric_name(self) -> str:
        """The version of VQA accuracy."""
        return self.accuracy

    def by_type(self, scores: Sequence[tuple[Mapping[str, str], float]]) -> str:
        """As vqaEvalDemo.py of GT-Vision-Lab/VQA. Its types have the accuracy of the last annotator, ours of all."""
        lines = [f'Overall Accuracy is: {mean_in_percent(scores)}']
        for name in ('question type', 'answer type'):
            of = [(types[name], score) for types, score in scores if name in types]
            if of:
                lines += ['', f'Per {name.title()} Accuracy is the following:']
                lines += [
                    f'{kind} : {mean_in_percent([o for o in of if o[0] == kind])}' for kind in sorted({*dict(of)})
                ]
        return '\n'.join(lines) if len(lines) > 1 else ''

    def item(
        self,
        id: str,
        image: Shown,
        question: str,
        answers: Sequence[Entry],
        types: Mapping[str, str] = MappingProxyType({}),
    ) -> Item:
        """A question; no answers if they are not published. An answer is a text, or an entry of the set's file."""
        text = self.prompts.question.format(question=question)
        texts = [answer if isinstance(answer, str) else answer['answer'] for answer in answers]
        shown = None
        if texts:
            shown = texts[0] if self.prompts.first else most_frequent(texts)
        return Item(id, image, text, shown, tuple(answers) or None, types=types)


def types_of(record: Mapping[str, Any]) -> dict[str, str]:
    """The types of a question that its record in a file gives."""
    names = {'question type': 'question_type', 'answer type': 'answer_type'}
    return {name: str(record[key]) for name, key in names.items() if record.get(key)}


@dataclasses.dataclass
class TwoFiles(VQA):
    """VQA's format: a file of questions, and one of annotations."""

    def two_files(
        self, folder: pathlib.Path, questions: str, annotations: str, images: pathlib.Path, image: str
    ) -> Iterator[Item]:
        """The questions in order; an id is the question's.

        Args:
          questions, annotations: names of the files; '' if the annotations are not published.
          images: their folder.
          image: name of an image, with a place for its image_id.
        """
        file = find(folder, questions, f'annotations/{questions}')
        asked = by_id(records(file, 'question_id', 'image_id', 'question', at='questions'), 'question_id', file)
        answered: dict[str, Record] = {}
        if annotations:
            answers = find(folder, annotations, f'annotations/{annotations}')
            answered = by_id(records(answers, 'question_id', 'answers', at='annotations'), 'question_id', answers)
            if different := sorted(asked.keys() ^ answered.keys()):
                raise UserError(
                    f'{file.name} and {answers.name} must have the same questions, but {len(different)} are in only '
                    f'one of them, such as {different[0]}.'
                )
        for id, record in asked.items():
            given = answered[id]['answers'] if answered else ()
            path = images / image.format(int(record['image_id']))
            yield self.item(id, path, record['question'], given, types_of(answered.get(id, {})))


def numbered(answers: Mapping[str, str]) -> list[Record]:
    """Answers as VQA's evaluation server takes them."""
    return [dict(question_id=int(id), answer=answer) for id, answer in answers.items()]
