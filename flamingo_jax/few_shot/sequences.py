"""Few-shot sequences, built on the fly from a picture set: what a Flamingo learns in-context learning from.

They draw anew for every sequence, so that only the prompt can tell the task:

    bind       n concepts get an invented word each; their pictures come in random order, never one style twice running.
               Only the word of a concept that came before is a target: it can be copied from the prompt, and from nowhere
               else.
    name       pictures with their true names in one language, which the sequence must follow.
    kind       pictures with the word for what kind of thing they show.
    yes_or_no  pictures, each with a question such as `is it an animal?`.
    which      two pictures at a time, and a question about the first or the second.
    question   pictures with a question of their own and its answer.
    direction  clips that play `forward` or `backward`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from flamingo_jax.few_shot import kinds
from flamingo_jax.few_shot.nonce import nonce, nonces
from flamingo_jax.inputs.augment import mirror
from flamingo_jax.inputs.images import Frames
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.picture_set import Picture, PictureSet

DIRECTIONS = ('forward', 'backward')


@dataclasses.dataclass(frozen=True)
class FewShotConfig:
    """What sequences are drawn."""

    shots: int = 10  # Pictures (or text keys) a sequence.
    prompt: str = ''  # Between a picture and its answer: '' is the paper's training format, ' Output:' its prompt's.
    # Kind of sequence -> its share.
    mixture: dict[str, float] = dataclasses.field(default_factory=lambda: dict(bind=1.0))
    classes: tuple[int, int] = (2, 5)  # Fewest and most concepts of a `bind` sequence.
    text_keys: float = 0.3  # Probability that a `bind` sequence has English names for half of its pictures.
    blend: float = 0.15  # Probability that a class of `bind` is a blend of two concepts: a thing that has no name.
    real_words: float = 0.15  # Probability that a label of `bind` is the name of some other concept.
    languages: tuple[str, ...] = ('en',)  # Of names.
    repeats: float = 0.0  # Probability that a `name` sequence shows few concepts again and again, as retrieval does.
    first_label: float = 0.0  # Loss weight of a label that came not before, which the prompt cannot tell.
    # Beginning of a subcategory -> the word for that kind of thing (few_shot/kinds.py).
    kinds: dict[str, str] = dataclasses.field(default_factory=dict)


class Sequences:
    """A random map from nothing to documents."""

    def __init__(self, pictures: PictureSet, config: FewShotConfig):
        """Raises ValueError if the picture set lacks what some kind of sequence needs."""
        self._set, self._config = pictures, config
        self._concepts = sorted(pictures.by_concept)
        asked = {kind for kind, share in config.mixture.items() if share}
        if unknown := sorted(asked - set(SEQUENCES)):
            raise ValueError(f'few_shot.mixture has {unknown}; there are {sorted(SEQUENCES)}.')
        self._kinds, shares = zip(*sorted(config.mixture.items()), strict=True)
        self._shares = np.array(shares) / sum(shares)
        if 'bind' in asked and len(self._concepts) < 2 * config.classes[1]:
            raise ValueError(
                f'Sequences of {config.classes[1]} classes need at least {2 * config.classes[1]} concepts; '
                f'the picture set has {len(self._concepts)}.'
            )
        if 'name' in asked and len(self._concepts) < config.shots:
            raise ValueError(
                f'Sequences of {config.shots} pictures of different concepts: the picture set has {len(self._concepts)} concepts.'
            )
        named = {language for picture in pictures.pictures for language in picture.names}
        if asked & {'bind', 'name'} and (unknown := sorted(set(config.languages) - named)):
            raise ValueError(f'The picture set has no names in {unknown}; it has {sorted(named)}.')
        if asked & {'kind', 'yes_or_no', 'which'}:
            self._of_kind = kinds.by_kind(pictures, config.kinds)
        if 'question' in asked and not all(picture.questions for picture in pictures.pictures):
            raise ValueError('Sequences of questions need pictures that have some; see data/README.md.')
        if 'direction' in asked and pictures.blank.shape[0] < 2:
            raise ValueError('Only clips have a direction: set `frames` of the data set.')

    def __call__(self, rng: np.random.Generator) -> list[Chunk]:
        """One document of `shots` pictures or keys."""
        return SEQUENCES[self._kinds[rng.choice(len(self._kinds), p=self._shares)]](self, rng)

    def bind(self, rng: np.random.Generator) -> list[Chunk]:
        """Pictures with invented words."""
        c = self._config
        n = int(rng.integers(c.classes[0], c.classes[1] + 1))
        drawn = [self._concepts[i] for i in rng.choice(len(self._concepts), 2 * n, replace=False)]
        classes, others = drawn[:n], drawn[n:]
        language = c.languages[rng.integers(len(c.languages))]
        labels = [self._any_name(rng, language) if rng.random() < c.real_words else word for word in nonces(rng, n)]
        if len(set(labels)) < n:  # Two classes drew the same real word.
            labels = nonces(rng, n)
        blended = {
            concept: (other, rng.uniform(0.5, 0.8))
            for concept, other in zip(classes, others, strict=True)
            if rng.random() < c.blend
        }
        with_text = rng.random() < c.text_keys
        chunks, seen, style = [], set(), None
        for _ in range(c.shots):
            i = int(rng.integers(n))
            weight = 1.0 if i in seen else c.first_label
            seen.add(i)
            name = self._name_of(classes[i], 'en')
            if with_text and name and classes[i] not in blended and rng.random() < 0.5:
                chunks.append(Chunk(None, (' ' + name, c.prompt, ' ' + labels[i]), (0.0, 0.0, weight)))
                continue
            picture = self._draw(rng, classes[i], style)
            style = picture.style
            get = self._seen(rng, picture)
            if classes[i] in blended:
                concept, share = blended[classes[i]]
                get = _blend(get, self._seen(rng, self._draw(rng, concept, None, picture.style)), share)
            chunks.append(Chunk(get, (c.prompt, ' ' + labels[i]), (0.0, weight)))
        return chunks

    def name(self, rng: np.random.Generator) -> list[Chunk]:
        """Pictures with true names in one language."""
        c = self._config
        language = c.languages[rng.integers(len(c.languages))]
        few = int(rng.integers(2, c.shots)) if rng.random() < c.repeats else c.shots
        concepts = rng.choice(len(self._concepts), few, replace=False)
        chunks, style = [], None
        for i in concepts if few == c.shots else rng.choice(concepts, c.shots):
            picture = self._draw(rng, self._concepts[i], style)
            style = picture.style
            if language not in picture.names or language in picture.heldout_languages:
                continue
            name = picture.names[language]
            chunks.append(Chunk(self._seen(rng, picture), (c.prompt, ' ' + name), (0.0, 1.0)))
        return chunks

    def kind(self, rng: np.random.Generator) -> list[Chunk]:
        """Pictures with what kind of thing they show."""
        drawn = [kinds.draw(rng, self._of_kind) for _ in range(self._config.shots)]
        return [
            Chunk(self._seen(rng, picture), (self._config.prompt, ' ' + kind), (0.0, 1.0)) for kind, picture in drawn
        ]

    def yes_or_no(self, rng: np.random.Generator) -> list[Chunk]:
        """Pictures with questions whether they show a kind of thing."""
        chunks = []
        for _ in range(self._config.shots):
            kind, picture = kinds.draw(rng, self._of_kind)
            chunks.append(_asked(self._seen(rng, picture), *kinds.is_it(kind, list(self._of_kind), rng)))
        return chunks

    def which(self, rng: np.random.Generator) -> list[Chunk]:
        """Two pictures of different kinds, ` first` and ` second`, then a question about one of them; and again."""
        chunks = []
        for _ in range(self._config.shots // 2):
            two = [list(self._of_kind)[i] for i in rng.choice(len(self._of_kind), 2, replace=False)]
            for kind, place in zip(two, (' first', ' second'), strict=True):
                of = self._of_kind[kind]
                chunks.append(Chunk(self._seen(rng, of[rng.integers(len(of))]), (place,), (0.0,)))
            chunks.append(_asked(None, *kinds.of_two(tuple(two), rng)))
        return chunks

    def question(self, rng: np.random.Generator) -> list[Chunk]:
        """Pictures with one of their own questions each. They are not mirrored: a question may ask for left and right."""
        chunks = []
        for i in rng.choice(len(self._set.pictures), self._config.shots):
            picture = self._set.pictures[i]
            question, answer = picture.questions[rng.integers(len(picture.questions))]
            chunks.append(_asked(self._seen(rng, picture, mirrored=False), question, answer))
        return chunks

    def direction(self, rng: np.random.Generator) -> list[Chunk]:
        """Clips that play forward or backward."""
        chunks = []
        for i in rng.choice(len(self._set.pictures), self._config.shots):
            backward = rng.random() < 0.5
            picture = dataclasses.replace(self._set.pictures[i], backward=bool(backward))
            label = ' ' + DIRECTIONS[int(backward)]
            chunks.append(Chunk(self._seen(rng, picture), (self._config.prompt, label), (0.0, 1.0)))
        return chunks

    def _draw(self, rng, concept: str, not_style: str | None, style: str | None = None) -> Picture:
        pictures = self._set.by_concept[concept]
        wanted = [p for p in pictures if (p.style == style if style else p.style != not_style)] or pictures
        return wanted[rng.integers(len(wanted))]

    def _name_of(self, concept: str, language: str) -> str | None:
        picture = self._set.by_concept[concept][0]
        return None if language in picture.heldout_languages else picture.names.get(language)

    def _any_name(self, rng, language: str) -> str:
        concept = self._concepts[rng.integers(len(self._concepts))]
        return self._name_of(concept, language) or nonce(rng)

    def _seen(self, rng, picture: Picture, mirrored: bool = True) -> Callable[[], Frames]:
        """One of the picture's views, by chance mirrored. Drawn now: a picture is read later, in whatever order."""
        flipped = rng.random() < 0.5 and mirrored
        view = int(rng.integers(self._set.views))

        def get():
            frames = self._set.frames(picture, view)
            return mirror(frames) if flipped else frames

        return get


def _asked(picture: Callable[[], Frames] | None, question: str, answer: str) -> Chunk:
    return Chunk(picture, (kinds.asked(question), f' {answer}'), (0.0, 1.0))


def _blend(a: Callable[[], Frames], b: Callable[[], Frames], share: float) -> Callable[[], Frames]:
    def get():
        x = a()
        return (share * x.astype(np.float32) + (1 - share) * b().astype(np.float32)).astype(x.dtype)

    return get


# Kind of sequence, as the config names it -> how one is drawn.
SEQUENCES: dict[str, Callable[[Sequences, np.random.Generator], list[Chunk]]] = dict(
    bind=Sequences.bind,
    name=Sequences.name,
    kind=Sequences.kind,
    yes_or_no=Sequences.yes_or_no,
    which=Sequences.which,
    question=Sequences.question,
    direction=Sequences.direction,
)
