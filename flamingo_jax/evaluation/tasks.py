"""Few-shot tasks over a picture set, as episodes: a prompt of examples, a query, its answer, the candidates.

new words   n pictures of concepts never trained on get invented names in the prompt; another picture, in another
            style, of one of them is to be named. Only the prompt can tell.
names       pictures with their true names in one language, then another picture.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from flamingo_jax.evaluation import rices
from flamingo_jax.inputs.nonce import nonces
from flamingo_jax.inputs.picture_set import Picture, PictureSet


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """One task; it is evaluated at every number of shots, with every kind of support and of answer."""

    ways: int = 5  # Classes of a new-words episode; 0 asks for true names.
    shots: tuple[int, ...] = (1, 2, 4)  # Examples in the prompt: of each class, where there are classes.
    answers: tuple[str, ...] = ('ranked',)  # 'ranked' by likelihood among candidates, 'open-ended' by generation.
    support: tuple[str, ...] = ('random',)  # 'random' or 'rices'; new words have no pool to retrieve from.
    query_split: str = 'test'
    query_styles: tuple[str, ...] = ()
    support_split: str = 'test'
    support_styles: tuple[str, ...] = ()
    language: str = 'en'
    prompt: str = ''  # Between a picture and its answer, as in training.


@dataclasses.dataclass(frozen=True)
class Episode:
    """One question. Pictures are given by the picture set they belong to."""

    support: tuple[tuple[Picture, str], ...]  # In the order of the prompt.
    query: Picture
    truth: str
    candidates: tuple[str, ...]


class Task:
    """A task's two picture sets and their pooled features."""

    def __init__(self, name: str, config: TaskConfig, open_split: Callable[[str], tuple[PictureSet, rices.Pooled]]):
        """Makes a task.

        Args:
          name, config: the task.
          open_split: the name of a split -> its pictures, and a row of pooled features for each. Tasks may share what it
            returns.

        Raises:
          FileNotFoundError, ValueError: bad data, too few concepts, or a setting that makes no sense; before any work.
        """
        self.name, self.config = name, config
        if bad := sorted(set(config.answers) - {'ranked', 'open-ended'}) + sorted(
            set(config.support) - {'random', 'rices'}
        ):
            raise ValueError(f'Task {name}: {bad} is no kind of answers or support.')
        if config.ways and 'rices' in config.support:
            raise ValueError(f'Task {name}: new words have no support pool, so no RICES. Use support=("random",).')
        self.query_set, self._query_rows = _of_styles(*open_split(config.query_split), config.query_styles)
        self.support_set, self._support_rows = _of_styles(*open_split(config.support_split), config.support_styles)
        if config.ways:
            self.concepts = sorted(set(self.query_set.by_concept) & set(self.support_set.by_concept))
            most = max(config.shots)
            self.concepts = [c for c in self.concepts if len(self._others(c, None)) >= most]
            if len(self.concepts) < config.ways:
                raise ValueError(
                    f'Task {name}: {config.ways} classes of {most} shots need as many concepts with so many pictures in '
                    f'{config.support_styles}; there are {len(self.concepts)}.'
                )
        else:
            for pictures in (self.query_set, self.support_set):
                if not any(config.language in picture.names for picture in pictures.pictures):
                    raise ValueError(f'Task {name}: no picture has a name in {config.language!r}.')
            self.named_queries = [p for p in self.query_set.pictures if config.language in p.names]
            self.named_support = [p for p in self.support_set.pictures if config.language in p.names]
            if max(config.shots) >= len(self.named_support):
                raise ValueError(
                    f'Task {name}: {max(config.shots)} shots need more pictures than the {len(self.named_support)} that have a '
                    f'name in {config.language!r}.'
                )
            self._named_rows = np.stack([self._support_rows[p.index] for p in self.named_support])
            self._labels = [p.names[config.language] for p in self.named_support]
            self._indices = np.array([p.index for p in self.named_support])
            # A query comes again at other shots and kinds of answers.
            self._ranked, self._nearest_names = functools.cache(self._rank), functools.cache(self._nearest_of_all)
            names = {p.names[config.language] for p in self.named_queries + self.named_support}
            self.candidates = tuple(sorted(names))

    def episodes(self, number: int, shots: int, support: str, seed: int) -> Iterator[Episode]:
        """So many episodes: the same for the same seed, whatever the model. Other shots ask the same queries.

        Cheap beside what is done with them: no picture is read, and RICES ranks the support of a query once.
        """
        for i in range(number):
            rng = np.random.default_rng((seed, i))
            yield self._new_words(rng, shots) if self.config.ways else self._names(rng, shots, support)

    @property
    def chance(self) -> float:
        """The score of a guess among the candidates; an open-ended answer that copies some word of the prompt does as well."""
        return 1 / (self.config.ways or len(self.candidates))

    def _others(self, concept: str, query: Picture | None) -> list[Picture]:
        return [p for p in self.support_set.by_concept[concept] if query is None or p.style != query.style]

    def _new_words(self, rng: np.random.Generator, shots: int) -> Episode:
        concepts = [self.concepts[i] for i in rng.choice(len(self.concepts), self.config.ways, replace=False)]
        words = nonces(rng, self.config.ways)
        asked = int(rng.integers(self.config.ways))
        of = self.query_set.by_concept[concepts[asked]]
        query = of[rng.integers(len(of))]
        support = []
        for concept, word in zip(concepts, words, strict=True):
            pictures = self._others(concept, query) or self._others(concept, None)
            support += [(pictures[i], word) for i in rng.permutation(len(pictures))[:shots]]
        support = [support[i] for i in rng.permutation(len(support))]
        return Episode(tuple(support), query, words[asked], tuple(words))

    def _names(self, rng: np.random.Generator, shots: int, support: str) -> Episode:
        query = self.named_queries[rng.integers(len(self.named_queries))]
        if support == 'rices':
            ranked = self._ranked(query.index)
            chosen = ranked[len(ranked) - shots :]
        else:
            others = self._all_but(query.index)
            chosen = others[rng.choice(len(others), shots, replace=False)]
        examples = tuple((self.named_support[i], self._labels[i]) for i in chosen)
        return Episode(examples, query, query.names[self.config.language], self.candidates)

    def _all_but(self, query: int) -> Int[np.ndarray, 'n']:
        """Places of the named support pictures other than the query itself."""
        if self.config.query_split != self.config.support_split:
            return np.arange(len(self.named_support))
        return np.flatnonzero(self._indices != query)

    def _rank(self, query: int) -> Int[np.ndarray, 'n']:
        """Places of as many named support pictures as are ever shown, the most like the query last."""
        others = self._all_but(query)
        return others[rices.most_similar(self._query_rows[query], self._named_rows[others], max(self.config.shots))]

    def nearest(self, episode: Episode) -> tuple[str, str]:
        """What the frozen features alone would answer: the label of the nearest neighbour, and that of the nearest centroid.

        Of new words, among the support of the episode; of names, among all support pictures but the query itself.
        """
        if not self.config.ways:
            return self._nearest_names(episode.query.index)
        rows = np.array([self._support_rows[picture.index] for picture, _ in episode.support])
        return _nearest(self._query_rows[episode.query.index], rows, [word for _, word in episode.support])

    def _nearest_of_all(self, query: int) -> tuple[str, str]:
        others = self._all_but(query)
        return _nearest(self._query_rows[query], self._named_rows[others], [self._labels[i] for i in others])


def _nearest(query: Float[np.ndarray, 'd_v'], rows: np.ndarray, labels: Sequence[str]) -> tuple[str, str]:
    if not labels:
        return '', ''
    return rices.nearest_neighbour(query, rows, labels), rices.nearest_centroid(query, rows, labels)


def _of_styles(pictures: PictureSet, rows: rices.Pooled, styles: Sequence[str]):
    """The pictures of these styles, and picture's index -> pooled features."""
    return pictures.only(styles), {picture.index: row for picture, row in zip(pictures.pictures, rows, strict=True)}
