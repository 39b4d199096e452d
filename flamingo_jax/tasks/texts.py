"""Texts: images with real text about what they show.

They are for rows of class `Told` (`training/objectives/told.py`): the language model that reads the words in place of
the image says how the text goes on.

data/picture_texts/build.py writes the texts as JSON lines: the English name of a thing, words that can replace its
image, and the text that follows them.

    {"name": "tornado", "says": "A tornado", "text": " is a violent storm in which the wind turns."}

data/picture_texts/dialogues.py writes dialogues, which are marked as in `inputs/prompts.py:chat`.

    {"name": "tornado", "says": "A tornado.", "turns": [["Tell me about it.", "It is a violent storm."]]}
"""

import collections
import dataclasses
import json
from typing import Any

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.files import as_path
from flamingo_jax.inputs.prompts import chat
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.tasks import game


class Texts(game.Game):
    """Images of different things, each with a text about it."""

    @dataclasses.dataclass
    class Sequences(game.Sequences):
        """Images with texts about what they show."""

        path: str = ''  # The file of texts.

        def open(self, images: ImageSet, shots: int) -> None:
            """Finds things that have images and texts; FileNotFoundError or ValueError if there are too few."""
            super().open(images, shots)
            path = as_path(self.path)
            if not path.is_file():
                raise FileNotFoundError(
                    f'There are no texts at {self.path!r}. data/picture_texts/README.md has the command.'
                )
            texts: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
            with path.open(encoding='utf-8') as lines:
                for line in lines:
                    about = json.loads(line)
                    texts[about['name']].append(about)
            self.texts = {concept: texts[name] for concept in self.concepts if (name := self._name(concept)) in texts}
            self.concepts = sorted(self.texts)
            if len(self.concepts) < shots:
                raise UserError(
                    f'{path} has texts about only {len(self.concepts)} of the things in the images, but {shots} '
                    f'shots need {shots}. Reduce shots, or write more texts.'
                )

        def _name(self, concept: str) -> str | None:
            return self.images.by_concept[concept][0].names.get('en')

        def draw(self, rng: np.random.Generator) -> list[Chunk]:
            """`shots` images of different things, each in a random style, with one of the thing's texts."""
            chunks = []
            for i in rng.choice(len(self.concepts), self.shots, replace=False):
                of = self.texts[self.concepts[i]]
                about = of[rng.integers(len(of))]
                image = self.seen(rng, self.of_concept(rng, self.concepts[i], None))
                if 'turns' in about:
                    chunks += self._dialogue(image, about)
                else:
                    chunks.append(Chunk(image, (about['text'],), (1.0,), about['says']))
            return chunks

        @staticmethod
        def _dialogue(image, about: dict[str, Any]) -> list[Chunk]:
            """A dialogue about an image. Its answers are learned, and what is asked is not."""
            first, *more = (text for turn in about['turns'] for text in turn)
            begin, _, *texts = chat([None, f' {first}'], *more)  # Nothing in place of the image.
            weights = (0.0, 1.0) * len(about['turns'])
            shown = Chunk(image, tuple(texts), weights, about['says'], marks=True)
            return [Chunk(None, (begin,), (0.0,), marks=True), shown]
