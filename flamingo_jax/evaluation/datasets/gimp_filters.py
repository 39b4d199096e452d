"""GIMP's manual (Debian `gimp-help-en` 3.0.0-4, GFDL): two results of two filters with their names, then a third.

A page of the manual shows what its filter does in one or more images. A question shows an image of each of two
filters and its filter's name, in random order, and asks about another image of one of them. The right name is in
the prompt, and chance is one half. Names alone do not tell; but the images of one page are often of one photograph,
so that the nearest neighbour on the frozen features says how far looks alone go.

The folder is the one that `data/debian_pages/fetch.sh RAW en` fills. The text of the pages is not shown.
"""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from flamingo_jax.errors import MissingPackageError, UserError
from flamingo_jax.evaluation.benchmark import Benchmark, Item
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.tasks.episode import Episode, Part
from flamingo_jax.tasks.nearest import nearest

EXAMPLES = 'images/filters/examples/'  # The folder of results and of originals; dialogs are in others.
# Captions of images that are not a result alone: originals, results beside them, maps and other inputs, details.
NOT_RESULTS = re.compile(
    r'\b(origin|original|source|before|left|right|middle|top|prepared|texture|maps?|bumpmap|masks?|layers?|dialog'
    r'|stencil|zoom|zoomed|components?|triangles)\b',
    re.IGNORECASE,
)


@dataclasses.dataclass
class GimpFilters(Benchmark):
    """The score is the share of right names. A shot is an image of each filter in the prompt."""

    shots: tuple[int, ...] = (1,)
    answers: tuple[str, ...] = ('ranked',)
    query_split: str = 'en'  # The language of the manual; which images are results is told by English captions.
    support_split: str = 'en'
    support_size: int = 0
    text_examples: int = 0
    ways: int = 2  # Filters in a prompt.

    may_answer: ClassVar[tuple[str, ...]] = ('ranked',)
    may_support: ClassVar[tuple[str, ...]] = ('random',)

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The results of all filters that have two or more, by page; an id is an image's path in the manual.

        Raises:
          ImportError: resiliparse, of the extra `build`, is not installed.
          FileNotFoundError: the folder has no manual in this language.
        """
        manual = next(iter(sorted(folder.glob(f'x/gimp-help-{split}/usr/share/gimp/*/help/{split}'))), None)
        if manual is None:
            raise FileNotFoundError(
                f'{folder} has no manual in the language {split}. Run data/debian_pages/fetch.sh {folder} {split}, '
                'and give this folder as config.data.'
            )
        images: dict[str, list[str]] = {}
        for page in sorted(manual.glob('*.html')):
            name, results = read_filter(page.read_bytes().decode('utf-8', 'replace'))
            images[name] = list(dict.fromkeys([*images.get(name, ()), *results]))
        # An image on the pages of two filters, such as a filter and its older version, has no single answer.
        pages = collections.Counter(image for some in images.values() for image in some)
        images = {name: [p for p in some if pages[p] == 1] for name, some in images.items()}
        names = tuple(name for name, some in images.items() if len(some) > 1)
        for name in names:
            for image in images[name]:
                yield Item(image.removeprefix(EXAMPLES), manual / image, self.prompts.output, name, candidates=names)

    def _check(self) -> None:
        """Asks about filters that have enough images, whichever is the query; ValueError if they are too few."""
        number = collections.Counter(item.answer for item in self._support)
        self._enough = sorted(name for name in number if number[name] > self.most)
        if len(self._enough) < self.ways:
            raise UserError(
                f'{self.ways} ways of {self.most} shots need {self.ways} filters that have {self.most} images '
                f'besides the query, but there are only {len(self._enough)}. Use fewer shots or ways.'
            )
        self._queries = [item for item in self._queries if item.answer in self._enough]
        super()._check()

    def prepare(self, pools: Pools) -> None:
        """Also computes the frozen features of all images, for the baselines."""
        super().prepare(pools)
        rows = self._pooled(pools, self._support)
        self._known = {item.image: (row, item.answer) for item, row in zip(self._support, rows, strict=True)}
        self._of: dict[str, list[Part]] = collections.defaultdict(list)
        for item, part in zip(self._support, self._examples, strict=True):
            self._of[item.answer].append(part)

    def episode(self, i: int, shots: int, support: str, answers: str, seed: int) -> Episode:
        """The i-th image in random order, after `shots` others of its filter and of each of `ways` - 1 others."""
        episode = super().episode(i, 0, support, answers, seed)
        rng = np.random.default_rng((seed, i))
        others = [name for name in self._enough if name != episode.truth]
        names = [episode.truth, *(others[j] for j in rng.choice(len(others), self.ways - 1, replace=False))]
        examples: list[Part] = []
        for name in names:
            parts = [part for part in self._of[name] if part.image != episode.query[0].image]
            examples += [parts[j] for j in rng.choice(len(parts), shots, replace=False)]
        return dataclasses.replace(
            episode,
            support=tuple(examples[j] for j in rng.permutation(len(examples))),
            candidates=tuple(sorted(names)),
        )

    def baselines(self, episode: Episode) -> dict[str, str]:
        """The names of the nearest neighbour and of the nearest centroid among the examples."""
        (query,) = episode.query
        known = [self._known[part.image] for part in episode.support]
        rows, names = np.array([row for row, _ in known]), [name for _, name in known]
        guesses = nearest(self._known[query.image][0], rows, names)
        return dict(zip(('nearest neighbour', 'nearest centroid'), guesses, strict=True))


def read_filter(html: str) -> tuple[str, list[str]]:
    """The name of a page's filter, and the paths of the images that show its results.

    ('', []) if the page is not that of a filter of the Filters menu. ImportError without the extra `build`.
    """
    try:
        from resiliparse.parse.html import HTMLTree
    except ImportError as error:
        raise MissingPackageError(
            f"The manual is read with resiliparse: pip install 'flamingo_jax[build]' ({error})."
        ) from error
    tree = HTMLTree.parse(html)
    up = [link for link in tree.head.get_elements_by_tag_name('link') if link.getattr('rel') == 'up']
    if not up or not (up[0].getattr('href') or '').startswith('filters-'):
        return '', []
    results = []
    for figure in tree.body.get_elements_by_class_name('mediaobject'):
        captions, images = figure.get_elements_by_class_name('caption'), figure.get_elements_by_tag_name('img')
        if not captions or len(images) != 1:
            continue
        path, caption = images[0].getattr('src') or '', captions[0].text.strip()
        if path.startswith(EXAMPLES) and 'orig' not in path and caption and not NOT_RESULTS.search(caption):
            results.append(path)
    return re.sub(r'^[\d.]+\s+', '', tree.title.strip()), results
