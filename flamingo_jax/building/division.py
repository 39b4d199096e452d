"""A long page -> several documents, divided at its headings."""

from collections.abc import Sequence

from flamingo_jax.building import texts
from flamingo_jax.building.page import Link, Text

LOWEST = 7  # Level of a heading that is none of h1 to h6.
PARAGRAPH = LOWEST + 1  # Without a heading, a page is divided between paragraphs.


def divide(nodes: Sequence[Text | Link], most: int, level: int = 1) -> list[list[Text | Link]]:
    """The parts of a page, each of at most so many words, in order; of a paragraph that is longer, one of more.

    It is divided at the highest headings first, and neighbours stay together as far as they fit.

    Args:
      nodes: in reading order.
      most: words; 0 divides nothing.
      level: of the headings to begin with, 1 is the highest.
    """
    if not most or level > PARAGRAPH or _words(nodes) <= most:
        return [list(nodes)]
    parts: list[list[Text | Link]] = []
    for piece in _pieces(nodes, level):
        for part in divide(piece, most, level + 1):
            if parts and _words([*parts[-1], *part]) <= most:
                parts[-1] += part
            else:
                parts.append(part)
    return parts


def _pieces(nodes: Sequence[Text | Link], level: int) -> list[list[Text | Link]]:
    """What stands between headings of a level. An image in a sentence divides nothing."""
    pieces: list[list[Text | Link]] = [[]]
    block = None
    for node in nodes:
        if isinstance(node, Text):
            begins = node.block != block and (node.level or PARAGRAPH) <= level and node.kind != 'caption'
            if begins and pieces[-1]:
                pieces.append([])
            block = node.block
        pieces[-1].append(node)
    return pieces


def _words(nodes: Sequence[Text | Link]) -> int:
    return texts.number_of_words('\n'.join(node.text for node in nodes if isinstance(node, Text)))
