"""Few-shot tasks over a picture set, as episodes: a prompt of examples, a query, its answer, the candidates.

words       n pictures of concepts never trained on get invented names in the prompt; another picture, in another
            style, of one of them is to be named. Only the prompt can tell.
names       pictures with their true names in one language, then another picture.
kinds       pictures with the word for what kind of thing they show.
yes_or_no   pictures with questions such as `is it an animal?`.
which       two pictures at a time, and a question about the first or the second of them.
questions   pictures with a question of their own and its answer.
direction   clips that play forward or backward.
"""

import functools

import numpy as np

from flamingo_jax.evaluation import rices
from flamingo_jax.evaluation.questions import Direction, Kinds, Questions, Which, YesOrNo
from flamingo_jax.evaluation.task import Episode, OpenSplit, Task, TaskConfig
from flamingo_jax.few_shot.nonce import nonces
from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet

OTHER_THINGS = 4  # Whose names in all languages stand beside those of the query, where the language is asked for.


class Words(Task):
    """New words."""

    def prepare(self) -> None:
        """Concepts with pictures enough for the most shots."""
        c, most = self.config, max(self.config.shots)
        self.concepts = sorted(set(self.query_set.by_concept) & set(self.support_set.by_concept))
        self.concepts = [concept for concept in self.concepts if len(self._others(concept, None)) >= most]
        if len(self.concepts) < c.ways:
            raise ValueError(
                f'Task {self.name}: {c.ways} classes of {most} shots need as many concepts with so many pictures in '
                f'{c.support_styles}; there are {len(self.concepts)}.'
            )

    def _others(self, concept: str, query: Picture | None) -> list[Picture]:
        return [p for p in self.support_set.by_concept[concept] if query is None or p.style != query.style]

    def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
        """`shots` pictures of each class, in random order, then another of one of them."""
        concepts = [self.concepts[i] for i in rng.choice(len(self.concepts), self.config.ways, replace=False)]
        words = nonces(rng, self.config.ways)
        asked = int(rng.integers(self.config.ways))
        of = self.query_set.by_concept[concepts[asked]]
        query = of[rng.integers(len(of))]
        examples = []
        for concept, word in zip(concepts, words, strict=True):
            pictures = self._others(concept, query) or self._others(concept, None)
            examples += [(pictures[i], word) for i in rng.permutation(len(pictures))[:shots]]
        examples = [examples[i] for i in rng.permutation(len(examples))]
        parts = [self.example(*example) for example in examples] + [self.query(query)]
        return Episode(tuple(parts), words[asked], tuple(words))

    def nearest(self, episode: Episode) -> tuple[str, str] | None:
        """Among the pictures of the prompt."""
        *examples, query = episode.parts
        rows = np.array([self.support_rows[part.picture.index] for part in examples])
        labels = [part.text.removeprefix(f'{self.config.prompt} ') for part in examples]
        return rices.nearest(self.query_rows[query.picture.index], rows, labels)


class Names(Task):
    """True names, as in the support: a stamp says `A hammer`, a drawing `hammer`."""

    answers = ('ranked', 'open-ended', 'language')
    support = ('random', 'rices')

    def prepare(self) -> None:
        """The pictures that have a name. Asked for is what the support shows too: no other name can be learned there."""
        c = self.config
        support = self.support_set.pictures
        self._names = {picture.concept: picture.names for picture in reversed(support) if c.language in picture.names}

        def kept(pictures: PictureSet, heldout: bool) -> list[Picture]:
            named = [p for p in pictures.pictures if p.concept in self._names]
            return [p for p in named if (c.language in p.heldout_languages) == heldout]

        self.queries, self.named = kept(self.query_set, c.heldout), kept(self.support_set, False)
        if not self.queries or not self.named:
            raise ValueError(
                f'Task {self.name}: of the pictures asked for {len(self.queries)} show what the support shows, and of the '
                f'support {len(self.named)} have a name in {c.language!r} that is '
                f'{"held out" if c.heldout else "shown in training"}.'
            )
        if max(c.shots) >= len(self.named):
            raise ValueError(
                f'Task {self.name}: {max(c.shots)} shots need more pictures than the {len(self.named)} that have a name in '
                f'{c.language!r}.'
            )
        if 'language' in c.answers and len(self._names) <= OTHER_THINGS:
            raise ValueError(
                f"Task {self.name}: 'language' asks among the names of {OTHER_THINGS + 1} things, and the support shows "
                f'{len(self._names)}: take more support, or other answers.'
            )
        self._labels = [self._name(picture) for picture in self.named]
        self._named_rows = np.stack([self.support_rows[p.index] for p in self.named])
        self._indices = np.array([p.index for p in self.named])
        # A query comes again at other shots and kinds of answers.
        self._ranked, self._nearest = functools.cache(self._rank), functools.cache(self._find_nearest)
        self._concepts = sorted(self._names)
        self.query_of = {picture.index: picture for picture in self.queries}
        self.candidates = tuple(sorted({names[c.language] for names in self._names.values()}))

    def _name(self, picture: Picture) -> str:
        return self._names[picture.concept][self.config.language]

    def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
        """`shots` named pictures, then another."""
        query = self.queries[rng.integers(len(self.queries))]
        others = self.others(self._indices, query)
        if support == 'rices':
            chosen = self._ranked(query.index)[len(others) - shots :]
        else:
            chosen = others[rng.choice(len(others), shots, replace=False)]
        parts = [self.example(self.named[i], self._labels[i]) for i in chosen] + [self.query(query)]
        if answers != 'language':
            return Episode(tuple(parts), self._name(query), self.candidates)
        concepts = [concept for concept in self._concepts if concept != query.concept]
        chosen = [concepts[i] for i in rng.choice(len(concepts), OTHER_THINGS, replace=False)]
        things = [self._names[concept] for concept in (query.concept, *chosen)]
        every = tuple(dict.fromkeys(name for names in things for name in names.values()))
        return Episode(tuple(parts), self._name(query), every, tuple(names[self.config.language] for names in things))

    def nearest(self, episode: Episode) -> tuple[str, str] | None:
        """Among all of the support."""
        return self._nearest(episode.parts[-1].picture.index)

    def _find_nearest(self, query: int) -> tuple[str, str]:
        others = self.others(self._indices, self.query_of[query])
        labels = [self._labels[i] for i in others]
        return rices.nearest(self.query_rows[query], self._named_rows[others], labels)

    def _rank(self, query: int) -> np.ndarray:
        """Places of the support pictures that are not the query, the most like it last."""
        others = self.others(self._indices, self.query_of[query])
        return others[rices.most_similar(self.query_rows[query], self._named_rows[others], len(others))]


# What a config's `asks` names.
TASKS: dict[str, type[Task]] = dict(
    words=Words,
    names=Names,
    kinds=Kinds,
    yes_or_no=YesOrNo,
    which=Which,
    questions=Questions,
    direction=Direction,
)


def make(name: str, config: TaskConfig, open_split: OpenSplit) -> Task:
    """The task that a config describes; errors as `Task`."""
    if config.asks not in TASKS:
        raise ValueError(f'Task {name} asks for {config.asks!r}; there are {sorted(TASKS)}.')
    return TASKS[config.asks](name, config, open_split)
