"""VATEX (Wang et al. 2019): videos of about 10 seconds, each with 10 English captions. DEV in the paper.

The folder has the annotations under their published names, and the videos as `videos/VIDEOID.mp4`. A video id ends with
the begin and the end of the part of the YouTube video; the files are those parts.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from flamingo_jax.evaluation.benchmark import Item, Video
from flamingo_jax.evaluation.datasets.captions import Captions
from flamingo_jax.evaluation.published import by_id, find, records, split_file, video_file

FILES = dict(
    train=('vatex_training_v1.0.json',),
    val=('vatex_validation_v1.0.json',),
    test=('vatex_public_test_english_v1.1.json', 'vatex_public_test_english_v1.0.json'),
    private_test=('vatex_private_test_without_annotations.json',),
)


@dataclasses.dataclass
class VATEX(Captions):
    """The splits are train, val, test (the public one, as in the paper) and private_test, which has no captions."""

    dev_size: int = 1024

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The videos; an id is the video id."""
        file = find(folder, *split_file(split, FILES))
        needed = ('videoID',) if split == 'private_test' else ('videoID', 'enCap')
        for id, record in by_id(records(file, *needed), 'videoID', file).items():
            yield self.item(id, Video(video_file(folder / 'videos', id)), record.get('enCap') or ())

    def results(self, answers: Mapping[str, str]) -> Any:
        """As the evaluation server takes them: video id -> caption."""
        return dict(answers)
