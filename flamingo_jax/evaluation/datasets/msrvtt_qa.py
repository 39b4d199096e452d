"""MSRVTT-QA (Xu et al. 2017): 72,821 test questions about videos, each with one word. Held out in the paper.

The folder has `train_qa.json`, `val_qa.json`, `test_qa.json`, and the videos as `videoNUMBER.mp4` in `videos`, or in
MSR-VTT's own folders `TrainValVideo` and `TestVideo`.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

from flamingo_jax.evaluation.benchmark import Item, Video
from flamingo_jax.evaluation.datasets.video_questions import VideoQuestions
from flamingo_jax.evaluation.published import by_id, find, records, split_file, video_file


@dataclasses.dataclass
class MSRVTTQA(VideoQuestions):
    """The splits are train, val and test. The score is the share of answers that are the right word."""

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The questions in order."""
        of_split = split_file(split, dict(train='TrainValVideo', val='TrainValVideo', test='TestVideo'))
        file = find(folder, f'{split}_qa.json')
        videos = find(folder, 'videos', of_split, 'video')
        rows = records(file, 'id', 'question', 'answer', 'video_id')
        for id, record in by_id(rows, 'id', file).items():
            path = video_file(videos, f'video{record["video_id"]}')
            yield self.item(id, Video(path), record['question'], record['answer'])
