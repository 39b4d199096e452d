"""Kinetics-700-2020 (Smaira et al. 2020): videos of 10 seconds, each of one of 700 actions. DEV in its table.

The folder has `train.csv`, `validate.csv` and `test.csv` (label, youtube_id, time_start, time_end, split), and the
videos as `train/ID_BEGIN_END.mp4`, or as `train/ACTION/ID_BEGIN_END.mp4`, with six digits of seconds; likewise `val`
and `test`. Many videos have vanished from YouTube: `skip_missing=True` leaves them out, as the paper did.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.benchmark import Item, Video
from flamingo_jax.evaluation.datasets.classification import Classification
from flamingo_jax.evaluation.metrics import top1_top5
from flamingo_jax.evaluation.published import find, records, split_file, video_file
from flamingo_jax.tasks.episode import Episode


@dataclasses.dataclass
class Kinetics700(Classification):
    """The splits are train, val and test. The score is the mean of top-1 and top-5."""

    metric = staticmethod(top1_top5.score)
    likelihoods = True

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The videos; an id is ID_BEGIN_END."""
        name = split_file(split, dict(train='train', val='validate', test='test'))
        needed = ('label', 'youtube_id', 'time_start', 'time_end')
        rows = records(find(folder, f'{name}.csv'), *needed)
        # The classes are those of the training set, whatever another file holds.
        of = records(find(folder, 'train.csv'), 'label') if split != 'train' else rows
        classes = self.classes({label: label for label in sorted({record['label'] for record in of})})
        videos = find(folder, split, name)
        for record in rows:
            if record['label'] not in classes[1]:
                raise UserError(f'{name}.csv has the action {record["label"]!r}, which train.csv does not have.')
            begin, end = int(float(record['time_start'])), int(float(record['time_end']))
            id = f'{record["youtube_id"]}_{begin:06d}_{end:06d}'
            path = video_file(videos, id, f'{record["label"]}/{id}')
            yield self.class_item(id, Video(path), record['label'], classes)

    def chance(self, episode: Episode) -> float:
        """Of the mean of top-1 and top-5."""
        n = len(episode.candidates)
        return (1 / n + min(5, n) / n) / 2
