"""Retrieval by two towers, both ways, on the captions of a benchmark (paper, table 9).

    c.tasks.texts = task(TextsOfImages, captions=COCO)       which of all captions belongs to an image
    c.tasks.images = task(ImagesOfTexts, captions=COCO)    which of all images belongs to a caption

The candidates are those of the whole split, whatever the number of questions that are asked.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.benchmark import Benchmark, Files, Item
from flamingo_jax.evaluation.metrics import recall
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.published import on_disk
from flamingo_jax.evaluation.task import Task
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.prompts import Prompt
from flamingo_jax.tasks.episode import Episode, Part

AT = {'recall at 1': 1, 'recall at 5': 5, 'recall at 10': 10}


@dataclasses.dataclass
class Retrieval(Task):
    """What both directions share."""

    captions: type[Benchmark] | None = None  # A benchmark of captions.
    # Text before each caption. In training they should begin with a space, too (`Documents.space=1`).
    form: str = ' {caption}'
    shots: tuple[int, ...] = (0,)
    answers: tuple[str, ...] = tuple(AT)
    controls: tuple[str, ...] = ()
    support_split: str = ''

    may_answer: ClassVar[tuple[str, ...]] = tuple(AT)
    metric = staticmethod(recall.score)

    def prepare(self, pools: Pools) -> None:
        """Reads the captions and checks that every image exists."""
        if self.captions is None:
            raise UserError('it has no benchmark to retrieve from. Set `captions` to a class of evaluation/datasets/.')
        if set(self.shots) != {0}:
            raise UserError('two towers see no examples. Set shots to (0,).')
        items = list(self.captions().read(on_disk(self.data or pools.data), self.query_split))
        if bad := [item.id for item in items if not item.references or item.file is None]:
            raise UserError(
                f'{len(bad)} of {len(items)} items of the split {self.query_split!r} have no caption or no image, '
                f'{bad[0]} for one.'
            )
        if missing := [item.file for item in items if not item.file.is_file()]:
            raise FileNotFoundError(
                f'Task {self.name}: the image {missing[0]} is missing, and {len(missing) - 1} more.'
            )
        self.items: list[Item] = items
        self.images = tuple(item.id for item in items)
        # A caption of two images is one candidate, which is right for both.
        self.texts = tuple(dict.fromkeys(caption for item in items for caption in item.references))
        self.files = Files(pools.image_format, 1, 1.0)
        shown = [self.files.identity(item.image) for item in items]
        about = json.dumps([shown, self.images, self.texts, self.form])
        self.among = hashlib.sha256(about.encode()).hexdigest()
        self._vectors: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._order = np.random.default_rng(0).permutation(self._queries)

    @property
    def _queries(self) -> int:
        raise NotImplementedError

    def number(self, episodes: int) -> int:
        return min(episodes, self._queries)

    def chance(self, episode: Episode) -> float | None:
        """None: it depends on k, and is next to nothing."""
        return None

    def answering(self, answers: str, max_new_tokens: int, num_beams: int, length_penalty: float = 0.0) -> 'Nearest':
        return Nearest(AT[answers], self.among, self)

    def vectors(self, model: Pretrained) -> tuple[np.ndarray, np.ndarray]:
        """The vectors of all images and of all captions; computed once."""
        if id(model) not in self._vectors:
            texts = model.text_vectors([self.form.format(caption=caption) for caption in self.texts])
            self._vectors[id(model)] = model.image_vectors([self.files.frames(i.image) for i in self.items]), texts
        return self._vectors[id(model)]


@dataclasses.dataclass
class TextsOfImages(Retrieval):
    """Which of all captions belongs to an image."""

    @property
    def _queries(self) -> int:
        return len(self.items)

    def episode(self, i: int, shots: int, support: str, answers: str, seed: int) -> Episode:
        """The i-th image in random order."""
        item = self.items[self._order[i]]
        query = (Part(item.image, self.files, ''),)
        return Episode((), query, item.references[0], references=item.references, id=item.id)

    def found(self, model: Pretrained, ids: Sequence[str], k: int) -> list[list[str]]:
        """The k captions nearest to each image."""
        images, texts = self.vectors(model)
        place = {id: i for i, id in enumerate(self.images)}
        return _nearest(images[[place[id] for id in ids]], texts, self.texts, k)


@dataclasses.dataclass
class ImagesOfTexts(Retrieval):
    """Which of all images belongs to a caption."""

    @property
    def _queries(self) -> int:
        return len(self.texts)

    def episode(self, i: int, shots: int, support: str, answers: str, seed: int) -> Episode:
        """The i-th caption in random order."""
        caption = self.texts[self._order[i]]
        right = tuple(item.id for item in self._with(caption))
        # The captions of an image are not independent.
        query = (Part(None, self.files, caption),)
        return Episode((), query, right[0], references=right, id=caption, clusters=right)

    def _with(self, caption: str) -> list[Item]:
        if not hasattr(self, '_of_caption'):
            self._of_caption: dict[str, list[Item]] = {}
            for item in self.items:
                for one in dict.fromkeys(item.references):
                    self._of_caption.setdefault(one, []).append(item)
        return self._of_caption[caption]

    def found(self, model: Pretrained, ids: Sequence[str], k: int) -> list[list[str]]:
        """The k images nearest to each caption."""
        images, texts = self.vectors(model)
        place = {caption: i for i, caption in enumerate(self.texts)}
        return _nearest(texts[[place[id] for id in ids]], images, self.images, k)


@dataclasses.dataclass(frozen=True)
class Nearest:
    """The k candidates nearest to a query.

    among: what tells the candidates from others. An answer that is kept is one among the same.
    """

    k: int
    among: str
    task: dataclasses.InitVar[Retrieval]

    def __post_init__(self, task: Retrieval):
        object.__setattr__(self, '_task', task)

    def __call__(self, model: Pretrained, prompts: Sequence[Prompt], episodes: Sequence[Episode]) -> list[list[str]]:
        """The candidates of each query, the nearest first."""
        return self.__dict__['_task'].found(model, [episode.id for episode in episodes], self.k)

    def room(self, model: Pretrained, prompt: Prompt, episode: Episode) -> int:
        """No tokens: nothing is written after a prompt."""
        return 0


def _nearest(queries: np.ndarray, candidates: np.ndarray, names: Sequence[Any], k: int) -> list[list[str]]:
    order = np.argsort(-queries @ candidates.T, axis=1, kind='stable')[:, :k]
    return [[names[i] for i in row] for row in order]
