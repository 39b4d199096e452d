"""TFDS builder of the text on which the small language model is pretrained: few-shot tasks in text, line by line.

A record is a document of documents.py in the format of interleaved documents, with all images empty. Records are
ArrayRecord; TensorFlow is not needed to write or read them.
"""

import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data.building import progress
from data.dictionary_text import documents
from data.dictionary_text.lexicon import Lexicon, read_lexicon

EIGHT_LANGUAGES = tuple('en de fr es it ru ja ko'.split())
# The languages in which CLDR names nearly all concepts and Tux Paint nearly all stamps ('no' is Norwegian bokmål).
ALL_LANGUAGES = (
    *EIGHT_LANGUAGES,
    *'am bg ca cs el eu fi ga gd gl gu hr hu hy id is ka lv nl no pl pt sk sl sq sv uk zh'.split(),
)


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """Languages, kinds of documents and sizes. `seed`, split and number determine a document."""

    languages: tuple[str, ...] = EIGHT_LANGUAGES
    train: int = 100_000
    validation: int = 2_000
    mixture: dict[Callable[..., documents.Document], int] = dataclasses.field(default_factory=lambda: documents.MIXTURE)
    seed: int = 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """Synthetic documents of few-shot tasks in text, see README.md."""

    VERSION = tfds.core.Version('1.8.0')
    BUILDER_CONFIGS = [
        Config(
            name='copying', description='8 languages, the two simplest kinds', train=40_000, mixture=documents.COPYING
        ),
        Config(name='small', description='8 languages, 100,000 documents'),
        Config(
            name='copying_full',
            description='36 languages, the two simplest kinds',
            languages=ALL_LANGUAGES,
            train=60_000,
            mixture=documents.COPYING,
        ),
        Config(
            name='full',
            description='36 languages, also questions about images, 300,000 documents',
            languages=ALL_LANGUAGES,
            train=300_000,
            validation=4_000,
            mixture=documents.FOR_IMAGES,
        ),
        Config(
            name='names_full',
            description='36 languages, the same kinds but mostly names, 200,000 documents',
            languages=ALL_LANGUAGES,
            train=200_000,
            mixture=documents.FOR_LANGUAGES,
            seed=1,
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'Fetch names, keywords and glosses with `data/dictionary_text/fetch.sh DIR`.'

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description='Few-shot tasks in text, `key label` line by line, for pretraining a language model.',
            features=tfds.features.FeaturesDict(
                {
                    'texts': tfds.features.Sequence(tfds.features.Text()),
                    'images': tfds.features.Sequence(tfds.features.Text()),  # all empty here
                    'weights': tfds.features.Sequence(np.float32),
                    'kind': tfds.features.Text(),  # the maker's name in documents.py
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        lexicon = read_lexicon(dl_manager.manual_dir, self.builder_config.languages)
        return {
            'train': self._generate_examples(lexicon, 'train', self.builder_config.train),
            'validation': self._generate_examples(lexicon, 'validation', self.builder_config.validation),
        }

    def _generate_examples(self, lexicon: Lexicon, split: str, number: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in progress(range(number), total=number, name=split):
            yield index, example(lexicon, f'{self.builder_config.seed}/{split}/{index}', self.builder_config.mixture)


def example(lexicon: Lexicon, seed: str, mixture: dict = documents.MIXTURE) -> dict[str, Any]:
    """The record of one document; the same seed and lexicon give the same document."""
    kind, segments = documents.document(lexicon, random.Random(seed), mixture)
    texts, weights = zip(*segments, strict=True)
    return {'texts': texts, 'images': [''] * len(texts), 'weights': np.array(weights, np.float32), 'kind': kind}
