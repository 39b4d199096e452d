"""easy-VQA (Zhou 2019; PyPI `easy-vqa`, MIT): questions about one coloured shape, such as `what color is the circle?`.

The train split has 4,000 images of 64 x 64 with 38,575 questions, the test split 1,000 with 9,673; there are 13
answers. The most frequent answer is right for .373 of the questions, the most frequent answer to each question for
.678. A model that sees the image must score higher.

The folder is the package's `data`: `train` and `test`, each with `questions.json` ([[question, answer, image], ...])
and `images/IMAGE.png`, and `answers.txt`.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterator

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.benchmark import Benchmark, Item
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.tasks.episode import Episode


@dataclasses.dataclass
class EasyVQA(Benchmark):
    """The score is the share of right answers, as in the package's own baseline."""

    answers: tuple[str, ...] = ('ranked',)

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The questions in order; an id is the number of the question."""
        questions, answers = folder / split / 'questions.json', folder / 'answers.txt'
        for file in (questions, answers):
            if not file.is_file():
                raise FileNotFoundError(
                    f'There is no {file}. config.data must be the folder `easy_vqa/data` of the unpacked package: '
                    'pip download --no-deps easy-vqa==1.0, then unzip it.'
                )
        candidates = tuple(answers.read_text(encoding='utf-8').split())
        for number, row in enumerate(json.loads(questions.read_text(encoding='utf-8'))):
            if not isinstance(row, list) or len(row) != 3 or row[1] not in candidates:
                raise UserError(
                    f'{questions}, question {number} is {row!r}. It must be [question, one of {answers.name}, image].'
                )
            question, answer, image = row
            file = folder / split / 'images' / f'{image}.png'
            yield Item(
                str(number), file, self.prompts.question.format(question=question), answer, candidates=candidates
            )

    def prepare(self, pools: Pools) -> None:
        """Finds the most frequent answer to each question among the examples."""
        super().prepare(pools)
        seen: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        for item in self._support:
            seen[item.text][item.answer] += 1
        self._frequent = {text: counts.most_common(1)[0][0] for text, counts in seen.items()}

    def baselines(self, episode: Episode) -> dict[str, str]:
        """The most frequent answer to the same question, which needs no image."""
        if not self._frequent:  # No example was read.
            return {}
        return {'majority answer': self._frequent.get(episode.query[-1].text, '')}
