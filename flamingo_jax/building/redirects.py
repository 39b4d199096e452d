"""Images that a crawl holds under another URL than a page names, since the one redirects to the other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flamingo_jax.building import warc
from flamingo_jax.building.runner import beam
from flamingo_jax.building.spill import GroupOnDisk


def followed(moves: beam.PCollection, images: beam.PCollection, work: str) -> beam.PCollection:
    """The captures of images by the URLs that redirect to them, through up to four redirects.

    moves: (to, from). images: (key, capture).
    """
    twice = _joined_moves(moves, [moves], work, 'twice')
    further = _joined_moves(twice, [moves, twice], work, 'further')
    captured = dict(once=moves, twice=twice, further=further, images=images)
    return captured | 'moved' >> GroupOnDisk(work) | 'captures moved' >> beam.FlatMap(_captures_moved)


def _joined_moves(first: beam.PCollection, then: Sequence[beam.PCollection], work: str, name: str) -> beam.PCollection:
    """Two moves of which the second begins where the first one ends, as one."""
    seconds = {
        f'then {i}': some | f'{name} turned {i}' >> beam.Map(lambda one: one[::-1]) for i, some in enumerate(then)
    }
    meeting = dict(first=first) | seconds
    return meeting | name >> GroupOnDisk(work) | f'{name} joined' >> beam.FlatMap(_join)


def _join(group: tuple[str, Mapping[str, Iterable[str]]]) -> Iterator[tuple[str, str]]:
    _, parts = group
    ends = {end for name, some in parts.items() if name != 'first' for end in some}
    yield from ((end, start) for start in parts['first'] for end in ends if end != start)


def _captures_moved(group: tuple[str, Mapping[str, Iterable]]) -> Iterator:
    key, parts = group
    for start in {one for name, some in parts.items() if name != 'images' for one in some} - {key}:
        yield from ((start, capture) for capture in parts['images'] if capture[2] not in warc.REDIRECTS)
