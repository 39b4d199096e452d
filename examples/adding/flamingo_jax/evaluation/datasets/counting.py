"""How many things are in an image. The folder has SPLIT.json: [[image, count], ...]."""

import dataclasses
import json

from flamingo_jax.evaluation.benchmark import Benchmark, Item
from flamingo_jax.evaluation.metrics import exact


@dataclasses.dataclass
class Counting(Benchmark):
    """The score is the share of right counts."""

    metric = staticmethod(exact.score)

    def read(self, folder, split):
        """The questions; an id is the name of the image."""
        for image, count in json.loads((folder / f'{split}.json').read_text()):
            text = self.prompts.question.format(question='How many?')
            yield Item(image, folder / image, text, str(count), references=(str(count),))
