"""Few-shot sequences, built on the fly from a picture set: what a Flamingo learns in-context learning from.

Two kinds. Both draw anew for every sequence, so that only the prompt can tell the answer:

    bind   n concepts get an invented word each; their pictures come in random order, never one style twice running.
           Only the word of a concept that came before is a target: it can be copied from the prompt, and from nowhere else.
    name   pictures of different concepts with their true names in one language, which the sequence must follow.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from flamingo_jax.inputs.interleave import Chunk, Frames
from flamingo_jax.inputs.nonce import nonce, nonces
from flamingo_jax.inputs.picture_set import Picture, PictureSet


@dataclasses.dataclass(frozen=True)
class FewShotConfig:
    """What sequences are drawn."""

    shots: int = 10  # Pictures (or text keys) a sequence.
    prompt: str = ''  # Between a picture and its answer: '' is the paper's training format, ' Output:' its prompt's.
    bind: float = 1.0  # Probability of a `bind` sequence; the others are `name`.
    classes: tuple[int, int] = (2, 5)  # Fewest and most concepts of a `bind` sequence.
    text_keys: float = 0.3  # Probability that a `bind` sequence has names in place of half of its pictures.
    blend: float = 0.5  # Probability that a `bind` sequence has a blend of two concepts as one of its classes.
    real_words: float = 0.15  # Probability that a label of `bind` is the name of some other concept.
    languages: tuple[str, ...] = ('en',)  # Of names.
    first_label: float = 0.0  # Loss weight of a label that came not before, which the prompt cannot tell.


class FewShot:
    """A random map from nothing to documents."""

    def __init__(self, pictures: PictureSet, config: FewShotConfig):
        """Raises ValueError if the picture set has too few concepts or lacks a language."""
        self._set, self._config = pictures, config
        self._concepts = sorted(pictures.by_concept)
        if len(self._concepts) < 2 * config.classes[1]:
            raise ValueError(
                f'Sequences of {config.classes[1]} classes need at least {2 * config.classes[1]} concepts; '
                f'the picture set has {len(self._concepts)}.'
            )
        if config.bind < 1 and len(self._concepts) < config.shots:
            raise ValueError(
                f'Sequences of {config.shots} pictures of different concepts: the picture set has {len(self._concepts)} concepts.'
            )
        named = {language for picture in pictures.pictures for language in picture.names}
        if unknown := sorted(set(config.languages) - named):
            raise ValueError(f'The picture set has no names in {unknown}; it has {sorted(named)}.')

    def __call__(self, rng: np.random.Generator) -> list[Chunk]:
        """One document of `shots` chunks."""
        return self.bind(rng) if rng.random() < self._config.bind else self.name(rng)

    def bind(self, rng: np.random.Generator) -> list[Chunk]:
        """Pictures with invented words."""
        c = self._config
        n = int(rng.integers(c.classes[0], c.classes[1] + 1))
        classes = list(rng.choice(len(self._concepts), n + 1, replace=False))
        *classes, other = [self._concepts[i] for i in classes]
        language = c.languages[rng.integers(len(c.languages))]
        labels = [self._any_name(rng, language) if rng.random() < c.real_words else word for word in nonces(rng, n)]
        if len(set(labels)) < n:  # Two classes drew the same real word.
            labels = nonces(rng, n)
        blended = {classes[0]: (other, rng.uniform(0.5, 0.8))} if rng.random() < c.blend else {}
        with_text = rng.random() < c.text_keys
        chunks, seen, style = [], set(), None
        for _ in range(c.shots):
            i = int(rng.integers(n))
            weight = 1.0 if i in seen else c.first_label
            seen.add(i)
            name = self._name_of(classes[i], language)
            if with_text and name and classes[i] not in blended and rng.random() < 0.5:
                chunks.append(Chunk(None, (name, c.prompt, ' ' + labels[i]), (0.0, 0.0, weight)))
                continue
            picture = self._draw(rng, classes[i], style)
            style = picture.style
            get = self._mirrored(rng, picture)
            if classes[i] in blended:
                concept, share = blended[classes[i]]
                get = _blend(get, self._mirrored(rng, self._draw(rng, concept, None, picture.style)), share)
            chunks.append(Chunk(get, (c.prompt, ' ' + labels[i]), (0.0, weight)))
        return chunks

    def name(self, rng: np.random.Generator) -> list[Chunk]:
        """Pictures with true names in one language."""
        c = self._config
        language = c.languages[rng.integers(len(c.languages))]
        chunks, style = [], None
        for i in rng.choice(len(self._concepts), c.shots, replace=False):
            picture = self._draw(rng, self._concepts[i], style)
            style = picture.style
            if language not in picture.names or language in picture.heldout_languages:
                continue
            name = picture.names[language]
            chunks.append(Chunk(self._mirrored(rng, picture), (c.prompt, ' ' + name), (0.0, 1.0)))
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

    def _mirrored(self, rng, picture: Picture) -> Callable[[], Frames]:
        mirror = rng.random() < 0.5  # Drawn now: a picture is read later, in whatever order.

        def get():
            frames = self._set.frames(picture)
            return mirror_frames(frames) if mirror else frames

        return get


def mirror_frames(frames: Frames) -> Frames:
    """Left-right flip of pixels [t height width 3], or of features [t s d_v] on their square grid."""
    if frames.ndim == 4:
        return frames[:, :, ::-1]
    t, s, d_v = frames.shape
    side = int(round(s**0.5))
    if side * side != s:
        raise ValueError(f'{s} features are no square grid: they cannot be mirrored.')
    return frames.reshape(t, side, side, d_v)[:, :, ::-1].reshape(t, s, d_v)


def _blend(a: Callable[[], Frames], b: Callable[[], Frames], share: float) -> Callable[[], Frames]:
    def get():
        x = a()
        return (share * x.astype(np.float32) + (1 - share) * b().astype(np.float32)).astype(x.dtype)

    return get
