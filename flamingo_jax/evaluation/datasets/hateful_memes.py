"""Hateful Memes (Kiela et al. 2020): is an image with a text on it hateful? Held out in the paper.

The folder has `train.jsonl`, `dev_seen.jsonl`, `test_seen.jsonl`, ... and the images in `img`. The paper's split is
test_seen, with 1,000 memes. The labels of the first release's `test.jsonl` are not published. For OpenFlamingo
some of these files are called `train.json` and `dev.json`; they are found too.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.benchmark import Benchmark, Item
from flamingo_jax.evaluation.metrics import roc_auc
from flamingo_jax.evaluation.published import by_id, find, records

LABELS = {0: 'no', 1: 'yes'}
OF_OPEN_FLAMINGO = dict(train=('train.json',), dev_seen=('dev.json',))


@dataclasses.dataclass
class HatefulMemes(Benchmark):
    """The splits are the names of the files. The model is told the text (only here; paper, appendix B.1.4)."""

    answers: tuple[str, ...] = ('ranked',)
    query_split: str = 'test_seen'

    metric = staticmethod(roc_auc.score)
    likelihoods = True

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The memes; an id is the meme's."""
        file = find(folder, f'{split}.jsonl', *OF_OPEN_FLAMINGO.get(split, ()))
        for id, record in by_id(records(file, 'id', 'img', 'text'), 'id', file).items():
            label = record.get('label')
            if label is not None and label not in LABELS:
                raise UserError(f'{file}: the label of {id} is {label!r}. It must be 0 or 1.')
            text = self.prompts.meme.format(text=record['text'])
            answer = LABELS.get(label)
            yield Item(id, folder / record['img'], text, answer, answer, ('yes', 'no'))

    def _check(self) -> None:
        """ValueError also if all memes have the same label, which has no ROC AUC."""
        super()._check()
        answers = {item.answer for item in self._queries}
        if self.scored and len(answers) == 1:
            raise UserError(
                f'all memes of the split {self.query_split!r} have the label {answers.pop()!r}, and ROC AUC needs both '
                'labels. Complete the file.'
            )
