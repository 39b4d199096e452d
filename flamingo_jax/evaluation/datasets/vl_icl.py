"""VL-ICL Bench (Zong et al., ICLR 2025, arXiv 2403.13164): six tasks that only the demonstrations tell.

The folder is the published one, unpacked: `PART/query.json` and `PART/support.json`, and images under the paths that
these name. A record has `image`, a list of paths, then `question` and `answer`. What differs between parts:

| part | what is asked | demonstrations of one shot |
|---|---|---|
| `open_mi` | the invented name of an image's class | an image of each of two classes, from the record of the query |
| `operator_induction` | the result of `2 ? 7` in an image | another image, with its result by the query's operator |
| `operator_induction_interleaved` | the same, of two images of a number each | likewise |
| `textocr` | the text in the red box | another image with its text |
| `clevr` | how many things have an attribute | another image, its attribute and their number |
| `matching_mi` | do two images belong together? | a pair that does, and one that does not |

Another folder in this form is read, too, such as the one that `data/icl_tasks/build.py` draws. The tasks that ask for
an image (`open_t2i_mi`, `cobsat`, `fast_attr_t2i`, `fast_count_t2i`) are not: a Flamingo writes text alone.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation import metrics
from flamingo_jax.evaluation.benchmark import Files
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.published import Record, find, on_disk, records
from flamingo_jax.evaluation.task import OPEN_ENDED, Task
from flamingo_jax.tasks.episode import Episode, Part

PARTS = ('open_mi', 'operator_induction', 'operator_induction_interleaved', 'textocr', 'clevr', 'matching_mi')
OF_IMAGES = ('open_t2i_mi', 'cobsat', 'fast_attr_t2i', 'fast_count_t2i')
OPERATORS = ('+', '-', 'x')  # A demonstration has its results by them, in this order.
OF_CLASSES = 'This is a'  # The question of each demonstration of `open_mi`, whose files have none.


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """Images, what is asked about them, and the answer: one, or one for each operator."""

    images: tuple[pathlib.Path, ...]
    question: str
    answers: tuple[str, ...]

    def answer(self, operator: str | None) -> str:
        """The answer by an operator, if it has several."""
        return self.answers[0 if operator is None else OPERATORS.index(operator)]


@dataclasses.dataclass(frozen=True)
class Query:
    """A question, and the demonstrations of each class if it has its own (`open_mi`)."""

    asked: Demonstration
    operator: str | None
    classes: Mapping[str, Sequence[Demonstration]]


@dataclasses.dataclass
class VLICL(Task):
    """Asks as the benchmark's code asks an OpenFlamingo, and scores as it does. See the table above for one shot."""

    part: str = 'operator_induction'
    shots: tuple[int, ...] = (0, 1, 2, 4, 8)
    answers: tuple[str, ...] = (OPEN_ENDED,)
    query_split: str = 'query'
    support_split: str = 'support'
    max_new_tokens: int = 15
    instruction: str = ''  # Before the first image. The set's code has one for each part; its default is none.
    prompt: str = '{question}\nAnswer:'
    answer: str = ' {answer}'

    may_answer: ClassVar[tuple[str, ...]] = (OPEN_ENDED, 'ranked')

    def prepare(self, pools: Pools) -> None:
        """Reads queries and demonstrations, and looks whether their images exist.

        Raises:
          FileNotFoundError, ValueError: a file or an image is missing, a record has another form, or there are too few
            demonstrations.
        """
        if self.part in OF_IMAGES:
            raise UserError(f'the part {self.part!r} asks for an image, and a Flamingo writes text alone.')
        if self.orders > 1:
            raise UserError('orders must be 1: a demonstration may have several images, which must stay together.')
        self._folder = on_disk(self.data or pools.data)
        self._support = self._demonstrations() if self._of_support else []
        file = find(self._folder, f'{self.part}/{self.query_split}.json')
        found = records(file, 'image', 'question', 'answer', *([] if self._of_support else ['classes', 'support']))
        self._queries = [self._read(file, i, record, self._query) for i, record in enumerate(found)]
        if not self._queries:
            raise UserError(f'{file} has no questions.')
        self._check(file)
        every = [one for shot in self._support for one in shot]
        self._majority = {
            operator: collections.Counter(one.answer(operator) for one in every).most_common(1)[0][0]
            for operator in {query.operator for query in self._queries if every}
        }
        self._files = Files(pools.image_format, 1, 1.0)
        self._candidates = tuple(sorted({query.asked.answers[0] for query in self._queries}))
        # Questions of one kind may stand together: the first of a random order are of all kinds.
        self._order = np.random.default_rng(0).permutation(len(self._queries))

    @property
    def _of_support(self) -> bool:
        return self.part != 'open_mi'

    def _read(self, file: pathlib.Path, number: int, record: Record, read: Any) -> Any:
        try:
            return read(record)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            why = error if isinstance(error, UserError) else repr(error)
            raise UserError(
                f'{file}, record {number} is not as the set publishes it: {why}. Download it again.'
            ) from error

    def _demonstrations(self) -> list[tuple[Demonstration, ...]]:
        """What may be drawn for a shot: one demonstration, or two in matching."""
        file = find(self._folder, f'{self.part}/{self.support_split}.json')
        keys = ('same', 'diff') if self.part == 'matching_mi' else ()
        found = records(file, *(keys or ('image', 'question', 'answer')))

        def pair(record: Record) -> tuple[Demonstration, ...]:
            return tuple(self._demonstration(record[key]) for key in keys) if keys else (self._demonstration(record),)

        return [self._read(file, i, record, pair) for i, record in enumerate(found)]

    def _demonstration(self, record: Record) -> Demonstration:
        images, answer = record['image'], record['answer']
        images = [images] if isinstance(images, str) else images
        answers = answer if isinstance(answer, list) else [answer]
        texts = [record['question'], *images]
        if not images or not all(isinstance(one, str) for one in texts) or not all(map(str, answers)):
            raise UserError(f'images {images!r}, question {record["question"]!r}, answer {answer!r}')
        return Demonstration(tuple(self._folder / path for path in images), record['question'], (*map(str, answers),))

    def _query(self, record: Record) -> Query:
        asked, operator, classes = self._demonstration(record), record.get('operator'), {}
        if len(asked.answers) != 1 or operator not in (None, *OPERATORS):
            raise UserError(f'answer {record["answer"]!r}, operator {operator!r}')
        if not self._of_support:
            for name in record['classes']:
                images = record['support'][name]['images']
                classes[name] = [Demonstration((self._folder / path,), OF_CLASSES, (name,)) for path in images]
            if asked.answers[0] not in classes or len(classes) < 2:
                raise UserError(f'answer {record["answer"]!r}, classes {[*classes]}')
        return Query(asked, operator, classes)

    def _check(self, file: pathlib.Path) -> None:
        """Errors for missing images, and for queries that have not enough demonstrations."""
        every = [query.asked for query in self._queries] + [one for shot in self._support for one in shot]
        every += [one for query in self._queries for some in query.classes.values() for one in some]
        for image in dict.fromkeys(image for one in every for image in one.images):
            if not image.is_file():
                raise FileNotFoundError(f'Task {self.name}: there is no image {image}. Unpack the part again.')
        operators = any(query.operator for query in self._queries)
        if wrong := [one for shot in self._support for one in shot if len(one.answers) != (3 if operators else 1)]:
            raise UserError(
                f'{file.with_name(f"{self.support_split}.json")}: the answer about {wrong[0].images[0].name} must be '
                + ('a list of the results by +, - and x.' if operators else 'one text or number.')
            )
        for number, query in enumerate(self._queries):
            if operators and query.operator is None:
                raise UserError(f'{file}, record {number} has no operator.')
            several = [sum(not _shares(one, query) for one in some) for some in query.classes.values()]
            there = min(several) if several else len(self._possible(number))
            if there < self.most:
                raise UserError(
                    f'{file}, record {number}: {self.most} shots need {self.most} demonstrations that do not show '
                    f'the image of the query, but there are only {there}. Use fewer shots.'
                )

    def _possible(self, number: int) -> list[tuple[Demonstration, ...]]:
        """The shots that do not show an image of this query."""
        query = self._queries[number]
        return [shot for shot in self._support if not any(_shares(one, query) for one in shot)]

    def number(self, episodes: int) -> int:
        return min(episodes, len(self._queries))

    def episode(self, i: int, shots: int, support: str, answers: str, seed: int) -> Episode:
        """The i-th question in random order, after random demonstrations; more shots begin with fewer."""
        number = int(self._order[i])
        query, rng = self._queries[number], np.random.default_rng((seed, number))
        truth, candidates = query.asked.answers[0], self._candidates
        if query.classes:
            others = [name for name in query.classes if name != truth]
            two = [truth, others[rng.integers(len(others))]]
            two, candidates = [two[j] for j in rng.permutation(2)], tuple(sorted(two))
            of = [[one for one in query.classes[name] if not _shares(one, query)] for name in two]
            shown = [some[j] for j in range(shots) for some in of]
        else:
            possible = self._possible(number)
            shown = [one for j in rng.permutation(len(possible))[:shots] for one in possible[j]]
        return Episode(
            support=tuple(part for one in shown for part in self._parts(one, one.answer(query.operator))),
            query=self._parts(query.asked, ''),
            truth=truth,
            candidates=() if answers == OPEN_ENDED else candidates,
            id=str(number),
            clusters=tuple(map(str, query.asked.images)),
            form=self.answer,
            begins=f'{self.instruction}\n',
            types={'operator': query.operator} if query.operator else {},
        )

    def _parts(self, one: Demonstration, label: str) -> tuple[Part, ...]:
        """A part for each image; the last has the text, with the answer if there is a label."""
        *first, last = one.images
        text = self.prompt.format(question=one.question) + (self.answer.format(answer=label) if label else '')
        return (
            *(Part(image, self._files, '', goes_on=True) for image in first),
            Part(last, self._files, text, label=label),
        )

    def baselines(self, episode: Episode) -> dict[str, str]:
        """What the last demonstration shows, and what most of all demonstrations of the set show."""
        guesses = {'last label': episode.support[-1].label} if episode.support else {}
        operator = episode.types.get('operator')
        return guesses | ({'majority answer': self._majority[operator]} if self._of_support else {})

    @property
    def metric_name(self) -> str:
        """The rule by which the set's code scores the part."""
        if self.part == 'matching_mi':
            return 'vl_icl_yes'
        return 'vl_icl_number' if 'operator_induction' in self.part else 'vl_icl'

    def metric(self, predictions: Mapping[str, str], references: Mapping[str, Any]) -> metrics.Scored:
        """Accuracy by that rule."""
        return metrics.score(self.metric_name, predictions, references)


def _shares(one: Demonstration, query: Query) -> bool:
    return bool({*one.images} & {*query.asked.images})
