"""iVQA (Yang et al. 2021): 2,000 test questions about videos of instructions, five answers each. Held out in the paper.

The folder has `train.csv`, `val.csv`, `test.csv` (video_id, question, answer1 to answer5, and start and end in
seconds), and the videos as `videos/VIDEO.mp4`.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

from flamingo_jax.evaluation.benchmark import Item, Video
from flamingo_jax.evaluation.datasets.video_questions import VideoQuestions
from flamingo_jax.evaluation.metrics import ivqa
from flamingo_jax.evaluation.published import find, records, split_file, video_file

ANSWERS = tuple(f'answer{i}' for i in range(1, 6))


@dataclasses.dataclass
class IVQA(VideoQuestions):
    """The splits are train, val and test. An answer that two of the five gave is right, one is half right."""

    metric = staticmethod(ivqa.score)

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The questions; an id is the number of the question in its file."""
        file = find(folder, f'{split_file(split, dict(train="train", val="val", test="test"))}.csv')
        for number, record in enumerate(records(file, 'video_id', 'question', *ANSWERS)):
            begin, end = record.get('start') or 0, record.get('end')
            path = video_file(folder / 'videos', record['video_id'])
            shown = Video(path, float(begin), float(end) if end else None)
            yield self.item(str(number), shown, record['question'], *(record[key] for key in ANSWERS))
