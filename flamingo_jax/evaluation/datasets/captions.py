"""What sets of captions share. An answer is a caption, scored by CIDEr against all captions of its image."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.benchmark import Benchmark, Item, Shown
from flamingo_jax.evaluation.metrics import cider
from flamingo_jax.evaluation.published import by_id, records


@dataclasses.dataclass
class Captions(Benchmark):
    """Captions of images or videos. An example shows the first caption, as in OpenFlamingo."""

    metric = staticmethod(cider.score)

    def item(self, id: str, image: Shown, captions: Sequence[str]) -> Item:
        """An image to describe; no captions if they are not published."""
        captions = tuple(caption.strip() for caption in captions)
        return Item(id, image, self.prompts.output, captions[0] if captions else None, captions or None)

    def learnt(self, item: Item) -> Sequence[str]:
        """All captions."""
        return item.references

    def read_answer(self, text: str) -> str:
        """The caption, by the prompts."""
        return self.prompts.read_output(text)


@dataclasses.dataclass
class Karpathy(Captions):
    """Captions in the splits of Karpathy and Fei-Fei (2015): one .json file of all images."""

    def karpathy(self, file: pathlib.Path, split: str, key: str, images: pathlib.Path) -> Iterator[Item]:
        """The images of a split, in the folder `images`; `key` is their id.

        The split `train` includes `restval`, COCO's validation images that are free to train on. `train2014` is the
        split without them.
        """
        rows = records(file, 'filename', 'split', 'sentences', at='images')
        there = sorted({record['split'] for record in rows})
        wanted = dict(train=('train', 'restval'), train2014=('train',)).get(split, (split,))
        chosen = [record for record in rows if record['split'] in wanted]
        if not chosen:
            raise UserError(f'{file} has no split {split!r}. Its splits are {there}.')
        if missing := [record['filename'] for record in chosen if key not in record]:
            raise UserError(f'{file}: the image {missing[0]} has no {key!r}.')
        for id, record in by_id(chosen, key, file).items():
            image = images / record.get('filepath', '') / record['filename']
            yield self.item(id, image, [sentence['raw'] for sentence in record['sentences']])
