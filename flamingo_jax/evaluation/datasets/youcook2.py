"""YouCook2 (Zhou et al. 2018): steps of recipes, each a part of a video with one sentence. Held out in the paper.

The folder has `youcookii_annotations_trainval.json`, and the videos as `raw_videos/training/RECIPE/VIDEO.mp4`
(and `validation`), as its downloader writes them, or as `videos/VIDEO.mp4`.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.benchmark import Item, Video
from flamingo_jax.evaluation.datasets.captions import Captions
from flamingo_jax.evaluation.published import find, read, split_file, video_file


@dataclasses.dataclass
class YouCook2(Captions):
    """The splits are train and val."""

    query_split: str = 'val'

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The steps; an id is VIDEO_STEP."""
        subset = split_file(split, dict(train='training', val='validation'))
        file = find(folder, 'youcookii_annotations_trainval.json')
        try:
            videos = {id: about for id, about in read(file)['database'].items() if about['subset'] == subset}
            steps = [
                (id, about['recipe_type'], step['id'], step['segment'], step['sentence'])
                for id, about in videos.items()
                for step in about['annotations']
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f'{file} must have "database": video -> subset, recipe_type and annotations, each with id, segment and '
                f'sentence; {error} is missing.'
            ) from error
        raw = folder / 'raw_videos'
        for id, recipe, number, (begin, end), sentence in steps:
            path = video_file(raw / subset / str(recipe), id) if raw.is_dir() else video_file(folder / 'videos', id)
            yield self.item(f'{id}_{number}', Video(path, float(begin), float(end)), [sentence])
