"""A benchmark: questions about pictures in files, each with its references. Each benchmark is one file in benchmarks/.

    @dataclasses.dataclass
    class COCO(Benchmark):
        metric = staticmethod(cider.score)
        def read(self, folder, split): ...yields an Item for each picture

A config file in experiments/evaluate/ then has `task(COCO, shots=(0, 4, 8, 16, 32), ...)`. All benchmarks share the
code that draws examples, writes prompts and scores answers.
"""

import dataclasses
import pathlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.task import OPEN_ENDED, Task
from flamingo_jax.few_shot.episode import Episode, Part
from flamingo_jax.few_shot.nearest import most_similar


@dataclasses.dataclass(frozen=True)
class Item:
    """One question of a benchmark, or one example.

    Attributes:
      id: identifies the question, as in the benchmark's own files.
      picture: a file, or the files of a film's frames; None for a question without a picture.
      text: the text between picture and answer, without spaces around it: `Question: what is it? Answer:`.
      answer: the right answer, as examples and reports show it.
      references: what the metric compares answers with; None is the answer alone.
      candidates, written: as in `few_shot.episode.Episode`.
    """

    id: str
    picture: pathlib.Path | tuple[pathlib.Path, ...] | None
    text: str
    answer: str
    references: Any = None
    candidates: tuple[str, ...] = ()
    written: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)


class Files:
    """Pictures in files: a `Source`."""

    def frames(self, picture: pathlib.Path | tuple[pathlib.Path, ...]) -> Any:
        return list(picture) if isinstance(picture, tuple) else picture

    def encoded(self, picture: pathlib.Path | tuple[pathlib.Path, ...]) -> bytes:
        return (picture[0] if isinstance(picture, tuple) else picture).read_bytes()

    def key(self, picture: pathlib.Path | tuple[pathlib.Path, ...]) -> Hashable:
        return picture

    def words(self, picture: pathlib.Path | tuple[pathlib.Path, ...]) -> str:
        return ''


@dataclasses.dataclass
class Benchmark(Task):
    """Asks each query once, in random order, up to the evaluation's number. Examples come from the support split."""

    support_split: str = 'train'
    answers: tuple[str, ...] = (OPEN_ENDED,)
    shots: tuple[int, ...] = (0, 4, 8)
    support_size: int = 2048  # Number of support items to draw examples from (paper, appendix B.1); 0 is all.
    support_seed: int = 0  # Seed of the choice of these items.

    retrieval: ClassVar[bool] = True

    def read(self, folder: pathlib.Path, split: str) -> Iterable[Item]:
        """The items of a split, from the benchmark's own files.

        Raises:
          FileNotFoundError, ValueError: a file is missing or has another format; the message names it.
        """
        raise NotImplementedError

    def prepare(self, pools: Pools) -> None:
        """Reads both splits, and checks that every picture exists."""
        folder = pathlib.Path(self.data or pools.data).expanduser()
        support_folder = pathlib.Path(self.support_data or folder).expanduser()
        self._queries = self._read(folder, self.query_split)
        same = (folder, self.query_split) == (support_folder, self.support_split)
        support = self._queries if same else self._read(support_folder, self.support_split)
        if self.support_size and self.support_size < len(support):
            rng = np.random.default_rng(self.support_seed)
            support = [support[i] for i in sorted(rng.choice(len(support), self.support_size, replace=False))]
        self._support = support
        # A picture can have several questions, and the others may reveal the answer to one.
        self._key = np.array([self._place(item.picture) for item in support])
        asked = {self._place(item.picture) for item in self._queries}
        often = max((int(np.sum(self._key == key)) for key in asked if key), default=0)
        if len(support) - often < self.most:
            raise ValueError(
                f'{self.most} shots need {self.most} examples, but besides the query there are only '
                f'{len(support) - often} in the split {self.support_split!r} of {support_folder}. Use fewer shots.'
            )
        if set(self.answers) - {OPEN_ENDED} and not all(item.candidates for item in self._queries):
            raise ValueError(f'it has no candidates to rank. Set its answers to ({OPEN_ENDED!r},).')
        self._files = Files()
        if 'rices' in self.support:
            self._rows = self._pooled(pools, self._queries), self._pooled(pools, support)

    def _read(self, folder: pathlib.Path, split: str) -> list[Item]:
        items = list(self.read(folder, split))
        if not items:
            raise ValueError(f'the split {split!r} of {folder} has no questions.')
        ids = [item.id for item in items]
        if len(set(ids)) < len(ids):
            twice = next(id for i, id in enumerate(ids) if id in ids[:i])
            raise ValueError(f'the split {split!r} of {folder} has the question {twice!r} twice. Remove one.')
        for item in items:
            for file in item.picture if isinstance(item.picture, tuple) else [item.picture] if item.picture else []:
                if not file.is_file():
                    raise FileNotFoundError(
                        f'Task {self.name}: the picture {file} of question {item.id} is missing. Put it there, or '
                        'remove the question.'
                    )
        return items

    @staticmethod
    def _place(picture: Any) -> str:
        return '' if picture is None else str(picture)

    def _pooled(self, pools: Pools, items: Sequence[Item]) -> np.ndarray:
        """A row for each item. A picture of several items is encoded once."""
        if any(item.picture is None for item in items):
            raise ValueError("support 'rices' compares pictures, but some questions have none. Use 'random'.")
        pictures = list(dict.fromkeys(item.picture for item in items))
        rows = dict(zip(pictures, pools.pooled([Files().frames(p) for p in pictures]), strict=True))
        return np.stack([rows[item.picture] for item in items])

    def number(self, episodes: int) -> int:
        return min(episodes, len(self._queries))

    def episode(self, i: int, shots: int, support: str, answers: str, seed: int) -> Episode:
        """The i-th query in random order, with examples of other pictures."""
        place = int(
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,))).permutation(len(self._queries))[i]
        )
        query = self._queries[place]
        key = self._place(query.picture)
        others = np.flatnonzero(self._key != key) if key else np.flatnonzero(self._key == self._key)
        if support == 'rices':
            queries, rows = self._rows
            chosen = others[most_similar(queries[place], rows[others], shots)]
        else:
            chosen = others[np.random.default_rng((seed, i)).choice(len(others), shots, replace=False)]
        shown = tuple(
            Part(item.picture, self._files, f' {item.text} {item.answer}')
            for item in (self._support[j] for j in chosen)
        )
        asked = (Part(query.picture, self._files, f' {query.text}'),)
        return Episode(shown, asked, query.answer, query.candidates, query.references, query.id, key, query.written)
