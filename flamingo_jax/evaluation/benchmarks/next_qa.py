"""NExT-QA (Xiao et al. 2021), open-ended: 9,178 test questions about what happens in films, and why. Held out.

The folder has the files of the open-ended part: `train.csv`, `val.csv`, `test.csv` (video, question, answer, qid,
type), `add_reference_answer_val.json` and `add_reference_answer_test.json`; and `map_vid_vidorID.json`, which names the
films in `NExTVideo` (`1164/3238737531.mp4`).
"""

import dataclasses
import pathlib
from collections.abc import Iterator

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.benchmark import Film, Item
from flamingo_jax.evaluation.benchmarks.film_questions import FilmQuestions
from flamingo_jax.evaluation.metrics import wups
from flamingo_jax.evaluation.published import film, find, read, records, split_file


@dataclasses.dataclass
class NExTQA(FilmQuestions):
    """The splits are train, val and test. The score is WUPS."""

    metric = staticmethod(wups.score)

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The questions in order; an id is VIDEO_QID."""
        file = find(folder, f'{split_file(split, dict(train="train", val="val", test="test"))}.csv')
        names = read(find(folder, 'map_vid_vidorID.json'))
        others = read(find(folder, f'add_reference_answer_{split}.json')) if split != 'train' else {}
        films = find(folder, 'NExTVideo', 'videos')
        for record in records(file, 'video', 'question', 'answer', 'qid', 'type'):
            video, qid, answer = record['video'], record['qid'], record['answer']
            if video not in names:
                raise UserError(
                    f'{folder / "map_vid_vidorID.json"} does not name {video}, which {file.name} asks about.'
                )
            references = dict(answer=answer, type=record['type'])
            if additional := others.get(video, {}).get(qid):
                references['additional'] = additional
            shown = Film(film(films, names[video], video))
            yield self.item(f'{video}_{qid}', shown, record['question'], answer, references=references)
