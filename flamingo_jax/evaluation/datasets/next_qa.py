"""NExT-QA (Xiao et al. 2021), open-ended: 9,178 test questions about what happens in videos, and why. Held out.

The folder has the files of the open-ended part (NExT-OE): `train.csv`, `val.csv`, `test.csv` (video, question, answer,
qid, type) and `add_reference_answer_test.json`, more right answers to test; and `map_vid_vidorID.json` of the part with
choices (NExT-QA), which names the videos in `NExTVideo` (`1164/3238737531.mp4`).
"""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.benchmark import Item, Video
from flamingo_jax.evaluation.datasets.video_questions import VideoQuestions
from flamingo_jax.evaluation.metrics import mean_in_percent, wups
from flamingo_jax.evaluation.published import find, read, records, split_file, video_file

TYPES = dict(TN='TPN', TP='TPN')  # Of questions, which the set's script counts as one.


@dataclasses.dataclass
class NExTQA(VideoQuestions):
    """The splits are train, val and test. The score is WUPS.

    An `add_reference_answer_SPLIT.json` is read if it is there. The set publishes that of test.
    """

    metric = staticmethod(wups.score)

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The questions in order; an id is VIDEO_QID.

        Three times train.csv has two questions with one VIDEO and QID: the second is VIDEO_QID_2.
        """
        file = find(folder, f'{split_file(split, dict(train="train", val="val", test="test"))}.csv')
        names = read(find(folder, 'map_vid_vidorID.json'))
        more = f'add_reference_answer_{split}.json'
        others = read(find(folder, more)) if split == 'test' or (folder / more).exists() else {}
        videos = find(folder, 'NExTVideo', 'videos')
        questions: dict[str, list[str]] = collections.defaultdict(list)
        for record in records(file, 'video', 'question', 'answer', 'qid', 'type'):
            video, qid, answer = record['video'], record['qid'], record['answer']
            if video not in names:
                raise UserError(
                    f'{folder / "map_vid_vidorID.json"} does not name {video}, which {file.name} asks about.'
                )
            references = dict(answer=answer, type=record['type'])
            if additional := others.get(video, {}).get(qid):
                references['additional'] = additional
            shown, id = Video(video_file(videos, names[video], video)), f'{video}_{qid}'
            asked = questions[id]
            if record['question'] not in asked:  # A question that is there twice keeps its id, and is refused.
                asked.append(record['question'])
                id += f'_{len(asked)}' if len(asked) > 1 else ''
            types = {'question type': record['type']}
            yield self.item(id, shown, record['question'], answer, references=references, types=types)

    def by_type(self, scores: Sequence[tuple[Mapping[str, str], float]]) -> str:
        """As the set's eval_oe.py: causal, temporal and descriptive questions. Its TPN is TN and TP."""
        of = [(TYPES.get(types['question type'], types['question type']), score) for types, score in scores]
        columns = dict(C=('CW', 'CH'), T=('TPN', 'TC'), D=('DB', 'DC', 'DL', 'DO'))
        names, groups = [], []
        for kind, some in columns.items():
            names += [*some, f'WUPS_{kind}']
            groups += [[one for one in of if one[0] == name] for name in some]
            groups += [[one for one in of if one[0].startswith(kind)]]
        return '\t'.join([*names, 'WUPS']) + '\n' + '\t'.join(map(mean_in_percent, [*groups, of]))
