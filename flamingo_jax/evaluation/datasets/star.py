"""STAR (Wu et al. 2021): questions about situations in videos, with four choices each. Held out in the paper.

The folder has `STAR_train.json`, `STAR_val.json`, `STAR_test.json`, and the videos of Charades as
`Charades_v1_480/VIDEO.mp4`. The paper's split is test, whose answers only the evaluation server has.
"""

import dataclasses
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.benchmark import Benchmark, Item, Video
from flamingo_jax.evaluation.metrics import mean_in_percent
from flamingo_jax.evaluation.published import by_id, find, records, split_file, video_file

TYPES = ('Interaction', 'Sequence', 'Prediction', 'Feasibility')  # Of questions: the beginning of their ids.


@dataclasses.dataclass
class STAR(Benchmark):
    """The splits are train, val and test. The score is top-1: the share of questions with the right choice."""

    answers: tuple[str, ...] = ('ranked',)
    query_split: str = 'val'

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The questions in order."""
        file = find(folder, f'STAR_{split_file(split, dict(train="train", val="val", test="test"))}.json')
        videos = find(folder, 'Charades_v1_480', 'videos')
        rows = records(file, 'question_id', 'question', 'video_id', 'start', 'end', 'choices')
        for id, record in by_id(rows, 'question_id', file).items():
            choices = tuple(choice['choice'] for choice in sorted(record['choices'], key=lambda c: c['choice_id']))
            answer = record.get('answer')
            if answer is not None and answer not in choices:
                raise UserError(f'{file}: the answer to {id} is {answer!r}, which is none of the choices {choices}.')
            shown = Video(video_file(videos, record['video_id']), float(record['start']), float(record['end']))
            text = self.prompts.question.format(question=record['question'])
            yield Item(id, shown, text, answer, candidates=choices, types={'question type': id.split('_')[0]})

    def by_type(self, scores: Sequence[tuple[Mapping[str, str], float]]) -> str:
        """As the set's server: each of the four types, and their mean, in which the types count alike."""
        of = {name: [one for one in scores if one[0]['question type'] == name] for name in TYPES}
        means = [(name, statistics.fmean(score for _, score in some)) for name, some in of.items() if some]
        printed = [*map(mean_in_percent, of.values()), mean_in_percent(means)]
        return '\t'.join([*TYPES, 'Mean']) + '\n' + '\t'.join(printed)
