"""New words: images get invented names, which only the prompt can tell.

Training: n concepts get a word each. Their images come in random order, never twice in a row in one style. A word is
a target only if its concept has come before, so that the word can be copied from the prompt, and from nowhere else.

Evaluation: images of n concepts, none of them in the training data, each with its word. The model must name another
image of one of them, in another style.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import Frames
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.image_set import ImageSet, LabelledImage
from flamingo_jax.tasks import game
from flamingo_jax.tasks.episode import Episode, Pool
from flamingo_jax.tasks.nearest import nearest
from flamingo_jax.tasks.nonce import nonce, nonces


class Words(game.Game):
    """New words for images."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Images with invented words."""

        classes: tuple[int, int] = (2, 5)  # Fewest and most concepts in a sequence.
        text_keys: float = 0.3  # Probability that a sequence has English names for half of its images.
        blend: float = 0.15  # Probability that a class is a blend of two concepts, which has no name.
        real_words: float = 0.15  # Probability that a label is the name of some other concept.
        languages: tuple[str, ...] = ('en',)  # Languages of these names.

        def open(self, images: ImageSet, shots: int) -> None:
            """Takes the concepts. There must be two for each class, since any class may be a blend."""
            super().open(images, shots)
            self.require_names(self.languages)
            if not 1 <= self.classes[0] <= self.classes[1]:
                raise UserError(
                    f'`classes` of the game are {self.classes}. They must be the fewest and the most, each 1 or more.'
                )
            if len(self.concepts) < 2 * self.classes[1]:
                raise UserError(
                    f'Sequences of {self.classes[1]} classes need at least {2 * self.classes[1]} concepts; the '
                    f'image set has {len(self.concepts)}. Reduce `classes`.'
                )

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """Images, or English names, each with the word of its class."""
            n = int(rng.integers(self.classes[0], self.classes[1] + 1))
            drawn = [self.concepts[i] for i in rng.choice(len(self.concepts), 2 * n, replace=False)]
            classes, others = drawn[:n], drawn[n:]
            language = self.languages[rng.integers(len(self.languages))]
            labels = [
                self._any_name(rng, language) if rng.random() < self.real_words else word for word in nonces(rng, n)
            ]
            if len(set(labels)) < n:  # Two classes drew the same real word.
                labels = nonces(rng, n)
            blended = {
                concept: (other, rng.uniform(0.5, 0.8))
                for concept, other in zip(classes, others, strict=True)
                if rng.random() < self.blend
            }
            with_text = rng.random() < self.text_keys
            chunks, came, style = [], set(), None
            for _ in range(self.shots):
                i = int(rng.integers(n))
                weight = float(i in came)  # The prompt cannot tell a label's first occurrence.
                came.add(i)
                name = self._name_of(classes[i], 'en')
                if with_text and name and classes[i] not in blended and rng.random() < 0.5:
                    chunks.append(Chunk(None, (' ' + name, self.prompt, ' ' + labels[i]), (0.0, 0.0, weight)))
                    continue
                image = self.of_concept(rng, classes[i], style)
                style = image.style
                get = self.seen(rng, image)
                if classes[i] in blended:
                    concept, share = blended[classes[i]]
                    get = _blend(get, self.seen(rng, self.of_concept(rng, concept, None, image.style)), share)
                chunks.append(Chunk(get, (self.prompt, ' ' + labels[i]), (0.0, weight)))
            return chunks

        def _name_of(self, concept: str, language: str) -> str | None:
            image = self.images.by_concept[concept][0]
            return None if language in image.heldout_languages else image.names.get(language)

        def _any_name(self, rng, language: str) -> str:
            concept = self.concepts[rng.integers(len(self.concepts))]
            return self._name_of(concept, language) or nonce(rng)

    @dataclasses.dataclass
    class Episodes(game.Episodes):
        """Which word of the prompt names another image. Shots are per class."""

        ways: int = 5  # Number of classes.

        def open(self, queries: Pool, support: Pool, shots: int, answers: Sequence[str]) -> None:
            """Finds concepts that have enough images for the most shots, whichever image is the query."""
            super().open(queries, support, shots, answers)
            both = sorted(set(queries.images.by_concept) & set(support.images.by_concept))
            self.styles = {image.style for image in queries.images.images}
            self.concepts = [concept for concept in both if self._suffices(concept)]
            if len(self.concepts) < self.ways:
                styles = sorted({image.style for image in support.images.images})
                raise UserError(
                    f'{self.ways} classes of {shots} shots need {self.ways} concepts that have {shots} images in '
                    f'{styles} besides the query, but there are only {len(self.concepts)}. Use fewer shots or ways, '
                    'or more styles.'
                )

        def _suffices(self, concept: str) -> bool:
            images = self.support.images.by_concept[concept]
            of_query = self.queries.images.by_concept[concept]
            least = min(len(self.without(images, [query])) for query in of_query)
            return all(max(least, sum(image.style != style for image in images)) >= self.shots for style in self.styles)

        def _examples_of(self, concept: str, query: LabelledImage, shots: int) -> list[LabelledImage]:
            """Examples of a concept, in other styles than the query's if there are enough."""
            images = self.support.images.by_concept[concept]
            other_styles = [image for image in images if image.style != query.style]
            return other_styles if len(other_styles) >= shots else self.without(images, [query])

        def episode(self, rng: np.random.Generator, shots: int, support: str, answers: str) -> Episode:
            """`shots` images of each class, in random order, then another image of one class."""
            concepts = [self.concepts[i] for i in rng.choice(len(self.concepts), self.ways, replace=False)]
            words = nonces(rng, self.ways)
            asked = int(rng.integers(self.ways))
            of = self.queries.images.by_concept[concepts[asked]]
            query = of[rng.integers(len(of))]
            examples = []
            for concept, word in zip(concepts, words, strict=True):
                images = self._examples_of(concept, query, shots)
                examples += [(images[i], word) for i in rng.permutation(len(images))[:shots]]
            examples = [self.example(*examples[i]) for i in rng.permutation(len(examples))]
            return Episode(tuple(examples), (self.query(query),), words[asked], tuple(words))

        def nearest(self, episode: Episode) -> tuple[str, str] | None:
            """Searches among the images of the prompt."""
            (query,) = episode.query
            rows = np.array([self.support.rows[part.image.index] for part in episode.support])
            labels = [part.text.removeprefix(f'{self.prompt} ') for part in episode.support]
            return nearest(self.queries.rows[query.image.index], rows, labels)


def _blend(a: Callable[[], Frames], b: Callable[[], Frames], share: float) -> Callable[[], Frames]:
    def get():
        x = a()
        return (share * x.astype(np.float32) + (1 - share) * b().astype(np.float32)).astype(x.dtype)

    return get
