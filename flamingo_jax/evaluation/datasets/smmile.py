"""SMMILE (arXiv 2506.21355): medical problems, each with demonstrations that physicians chose for its question.

The folder has the published `train-*.parquet` files of SMMILE or of SMMILE++, at any depth. A row has `problem_id`,
`order`, `image`, `question` and `answer`. The rows of a problem in their order are its demonstrations, and the last one
is what is asked. Problems that lack an image are left out, as the set's own code does.

Its multiple choice is among the answers of a problem; here they are ranked. Its judge, a language model, is not here.
"""

import dataclasses
import hashlib
import importlib.util
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import numpy as np

from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import parquet_rows
from flamingo_jax.errors import MissingPackageError, UserError
from flamingo_jax.evaluation.metrics import smmile
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.published import find, on_disk
from flamingo_jax.evaluation.task import OPEN_ENDED, Task
from flamingo_jax.parallel import processes
from flamingo_jax.tasks.episode import Episode, Part

COLUMNS = ('problem_id', 'order', 'image', 'question', 'answer')


@dataclasses.dataclass(frozen=True)
class Row:
    """A question with its image and its answer."""

    image: bytes
    question: str
    answer: str


class Encoded:
    """Encoded images: an `ImageSource`."""

    def frames(self, image: bytes) -> bytes:
        return image

    def encoded(self, image: bytes) -> bytes:
        return image

    def key(self, image: bytes) -> Hashable:
        return hashlib.sha256(image).hexdigest()

    def identity(self, image: bytes) -> Any:
        return self.key(image)

    def words(self, image: bytes) -> str:
        return ''


@dataclasses.dataclass
class SMMILE(Task):
    """The score is the share of right answers. `shots` are at most so many: the last of a problem, in its order."""

    shots: tuple[int, ...] = (0, 32)  # 32 is all: no problem has as many.
    answers: tuple[str, ...] = (OPEN_ENDED, 'ranked')
    query_split: str = 'train'  # The set's only one.
    support_split: str = ''
    max_new_tokens: int = 32
    prompt: str = ' Question: {question} Answer:'

    metric = staticmethod(smmile.score)
    may_answer: ClassVar[tuple[str, ...]] = (OPEN_ENDED, 'ranked')

    def prepare(self, pools: Pools) -> None:
        """Reads the problems.

        Raises:
          FileNotFoundError, ValueError: a file is missing or has another format, or no problem has all images.
        """
        if importlib.util.find_spec('pyarrow') is None:
            raise MissingPackageError("SMMILE is read with pyarrow: pip install 'flamingo_jax[build]'.")
        folder = on_disk(self.data or pools.data)
        files = sorted(folder.rglob(f'{self.query_split}-*.parquet'))
        if not files:
            find(folder, f'{self.query_split}-00000-of-00001.parquet')  # Says what is missing.
        problems: dict[str, list[tuple[int, Row | None]]] = {}
        for file in files:
            find(file.parent, file.name)
            for number, found in enumerate(parquet_rows(str(file), file.name, COLUMNS)):
                row = None if isinstance(found, Dropped) else found.value
                if row is None or any(row.get(key) is None for key in COLUMNS if key != 'image'):
                    raise UserError(f'{file}, row {number} cannot be read, or lacks one of {COLUMNS}.')
                encoded = (row.get('image') or {}).get('bytes')
                read = Row(encoded, str(row['question']), str(row['answer'])) if encoded else None
                problems.setdefault(str(row['problem_id']), []).append((int(row['order']), read))
        self._problems: dict[str, Sequence[Row]] = {}
        for id, rows in problems.items():
            ordered = [row for _, row in sorted(rows, key=lambda one: one[0]) if row is not None]
            if len(ordered) == len(rows):
                self._problems[id] = ordered
        if not self._problems:
            raise UserError(f'none of the {len(problems)} problems in {folder} has all of its images.')
        if left := len(problems) - len(self._problems):
            processes.say(f'Task {self.name}: {left} of {len(problems)} problems lack an image, and are left out.')
        if self.orders > 1:
            raise UserError('orders must be 1: problems have unequal numbers of demonstrations.')
        self._order = [list(self._problems)[j] for j in np.random.default_rng(0).permutation(len(self._problems))]

    def number(self, episodes: int) -> int:
        return min(episodes, len(self._order))

    def episode(self, i: int, shots: int, support: str, answers: str, seed: int) -> Episode:
        """The i-th problem in random order; its demonstrations in their own, but those that show the query's image."""
        id = self._order[i]
        *rows, query = self._problems[id]
        shown = [row for row in rows if row.image != query.image]
        shown = shown[max(len(shown) - shots, 0) :]
        return Episode(
            support=tuple(self._part(row, f' {row.answer}', row.answer) for row in shown),
            query=(self._part(query, '', ''),),
            truth=query.answer,
            candidates=() if answers == OPEN_ENDED else tuple(dict.fromkeys([*(r.answer for r in rows), query.answer])),
            id=id,
        )

    def _part(self, row: Row, answer: str, label: str) -> Part:
        return Part(row.image, Encoded(), self.prompt.format(question=row.question) + answer, label=label)

    def baselines(self, episode: Episode) -> dict[str, str]:
        """What the last demonstration shows."""
        return {'last label': episode.support[-1].label} if episode.support else {}
