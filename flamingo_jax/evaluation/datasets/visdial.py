"""VisDial 1.0 (Das et al. 2017): dialogues about images, 100 candidate answers a question. Held out in the paper.

The folder has `visdial_1.0_train.json`, `visdial_1.0_val.json` and `visdial_1.0_val_dense_annotations.json`; the
images of val in `VisualDialog_val2018`, those of train (COCO's) in `train2014` and `val2014`.

Of each dialogue of val the question is asked whose candidates people have rated; the caption and the dialogue before
come first. An example is a caption with its whole dialogue.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.benchmark import Benchmark, Item
from flamingo_jax.evaluation.datasets.classification import labels
from flamingo_jax.evaluation.metrics import ndcg
from flamingo_jax.evaluation.published import by_id, find, read, records, split_file, with_mark
from flamingo_jax.tasks.episode import Episode


@dataclasses.dataclass
class VisDial(Benchmark):
    """The splits are train and val. The score is NDCG."""

    answers: tuple[str, ...] = ('ranked',)
    query_split: str = 'val'
    shots: tuple[int, ...] = (0, 4, 8, 16)  # 32 exceed the context (paper, appendix D.1).

    metric = staticmethod(ndcg.score)
    likelihoods = True

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The dialogues; an id is the image's."""
        file = find(folder, f'visdial_1.0_{split_file(split, dict(train="train", val="val"))}.json')
        data = (read(file) or {}).get('data')
        if not isinstance(data, Mapping) or {'questions', 'answers', 'dialogs'} - data.keys():
            raise UserError(f'{file} must have "data" with questions, answers and dialogs.')
        questions, answers = data['questions'], data['answers']
        rated = {}
        if split == 'val':
            dense = find(folder, 'visdial_1.0_val_dense_annotations.json')
            rated = by_id(records(dense, 'image_id', 'round_id'), 'image_id', dense)
        for id, dialogue in by_id(data['dialogs'], 'image_id', file).items():
            if split == 'val' and id not in rated:
                raise UserError(f'{dense} has no annotations of the image {id}.')
            rounds = dialogue['dialog']
            last = rated[id]['round_id'] - 1 if rated else len(rounds) - 1
            asked = rounds[last]
            text = f' {dialogue["caption"]}'
            for turn in rounds[:last]:
                text += self.prompts.question.format(question=with_mark(questions[turn['question']]))
                text += self.prompts.answer.format(answer=answers[turn['answer']])
            text += self.prompts.question.format(question=with_mark(questions[asked['question']]))
            image = _image(folder, split, int(id))
            if not rated:
                yield Item(id, image, text, answers[asked['answer']])
                continue
            texts = {str(i): answers[option] for i, option in enumerate(asked['answer_options'])}
            label = labels(texts)
            relevance = rated[id].get('gt_relevance', rated[id].get('relevance'))
            if relevance is None or len(relevance) != len(texts):
                raise UserError(f'{dense}: the image {id} must have a relevance for each of {len(texts)} answers.')
            references = {label[str(i)]: float(value) for i, value in enumerate(relevance)}
            written = {label[key]: (option,) for key, option in texts.items()}
            right = label[str(asked['gt_index'])]
            yield Item(id, image, text, right, references, tuple(written), written)

    def chance(self, episode: Episode) -> float:
        """The expected NDCG of a random order."""
        relevance = np.sort(list(episode.references.values()))[::-1]
        discounts = 1 / np.log2(np.arange(2, 2 + np.count_nonzero(relevance)))
        best = float(relevance[: len(discounts)] @ discounts)
        return float(relevance.mean() * discounts.sum()) / best if best else 0.0


def _image(folder: pathlib.Path, split: str, id: int) -> pathlib.Path:
    if split == 'val':
        return folder / 'VisualDialog_val2018' / f'VisualDialog_val2018_{id:012d}.jpg'
    train, val = (folder / part / f'COCO_{part}_{id:012d}.jpg' for part in ('train2014', 'val2014'))
    return val if val.is_file() else train
