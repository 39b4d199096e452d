"""MSVD-QA (Xu et al. 2017): 13,157 test questions about videos of YouTube, each with one word. DEV in the paper.

The folder has `train_qa.json`, `val_qa.json`, `test_qa.json`, `youtube_mapping.txt`, and the videos as
`YouTubeClips/NAME.avi`, which the mapping names, or as `video/vidNUMBER.avi`.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.benchmark import Item, Video
from flamingo_jax.evaluation.datasets.video_questions import VideoQuestions
from flamingo_jax.evaluation.published import by_id, find, records, split_file, video_file


@dataclasses.dataclass
class MSVDQA(VideoQuestions):
    """The splits are train, val and test. The score is the share of answers that are the right word."""

    dev_size: int = 1024

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The questions in order."""
        file = find(folder, f'{split_file(split, dict(train="train", val="val", test="test"))}_qa.json')
        clips = folder / 'YouTubeClips'
        names = {}
        if clips.is_dir():
            lines = find(folder, 'youtube_mapping.txt').read_text(encoding='utf-8').splitlines()
            names = {number: name for name, number in map(str.split, filter(str.strip, lines))}
        rows = records(file, 'id', 'question', 'answer', 'video_id')
        for id, record in by_id(rows, 'id', file).items():
            number = f'vid{record["video_id"]}'
            if clips.is_dir() and number not in names:
                raise UserError(
                    f'{folder / "youtube_mapping.txt"} does not name {number}, which {file.name} asks about.'
                )
            path = video_file(clips, names[number]) if clips.is_dir() else video_file(folder / 'video', number)
            yield self.item(id, Video(path), record['question'], record['answer'])
