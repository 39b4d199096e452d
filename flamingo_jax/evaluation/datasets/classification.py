"""What sets of classes share: every class is a candidate, and its likelihood as a continuation is compared.

The paper's prompts have images of few classes, so that random examples help little: RICES (`support=('rices',)`)
finds those that look like the query, and averaging over 6 orders of them (`orders=6`) helps further (table 7).
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from flamingo_jax.evaluation.benchmark import Benchmark, Item, Shown
from flamingo_jax.evaluation.metrics import exact

# Labels, and label -> the ways to write the name of its class.
Classes: TypeAlias = tuple[tuple[str, ...], Mapping[str, Sequence[str]]]


@dataclasses.dataclass
class Classification(Benchmark):
    """Images or videos of classes."""

    answers: tuple[str, ...] = ('ranked',)
    query_split: str = 'val'
    support_size: int = 5  # Examples of each class to draw from (paper, table 7: 1 or 5); 0 is all.
    of_each_class: bool = True  # Whether `support_size` is that of each class; False: of all together.
    dev_size: int = 10  # Questions of each class that the split 'dev' asks.
    class_prompts: tuple[str, ...] = ('{}',)  # Ways to write a class, over which its likelihoods are averaged.

    def classes(self, names: Mapping[str, str]) -> Classes:
        """The classes of these labels and names, for `class_item`: all items share them, and there may be a million."""
        ways = {label: tuple(prompt.format(name) for prompt in self.class_prompts) for label, name in names.items()}
        return tuple(ways), ways

    def class_item(self, id: str, image: Shown, answer: str, classes: Classes) -> Item:
        """An image whose class is asked; `answer` is the label of its class."""
        references = answer if self.likelihoods else (answer,)
        return Item(id, image, self.prompts.output, answer, references, *classes)

    def draw(self, items: Sequence[Item], number: int, seed: int) -> list[Item]:
        """Random items in their order, so many of each class; all for 0."""
        if not number:
            return list(items)
        of_class: dict[str | None, list[Item]] = collections.defaultdict(list)
        for item in items:
            of_class[item.answer].append(item)
        draw = super().draw
        drawn = {item.id for some in of_class.values() for item in draw(some, number, seed)}
        return [item for item in items if item.id in drawn]

    def draw_support(self, items: Sequence[Item]) -> list[Item]:
        """Random items, `support_size` of each class or of all."""
        if self.of_each_class:
            return super().draw_support(items)
        return Benchmark.draw(self, items, self.support_size, self.support_seed)


def labels(names: Mapping[str, str]) -> dict[str, str]:
    """Class -> a label that no other class has: its name, with the class beside it if several have this name."""
    number = collections.Counter(exact.normal(name) for name in names.values())
    return {key: name if number[exact.normal(name)] == 1 else f'{name} ({key})' for key, name in names.items()}
