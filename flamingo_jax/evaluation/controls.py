"""Controls: the same questions with something taken from their demonstrations, to tell what a score needs.

    c.tasks.words = task(Words, controls=('shuffled images', 'random labels'))      or ('all',), or ('gain',)

A control is one function here, from a question with its demonstrations to the one that is asked in its place, and a
row of CONTROLS. The answer is always scored against the truth of the question itself.

Models can be right for other reasons than the demonstrations: they know the format, read the labels without looking
at the images, or look at the query alone (Min et al. 2202.12837, Wei et al. 2303.03846, TrueMICL 2507.15807).
"""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.metrics import exact
from flamingo_jax.inputs.images import Unread
from flamingo_jax.tasks.episode import Episode, ImageSource, Part

NO_LABEL = '...'  # What stands for a label in 'format alone'.


@dataclasses.dataclass(frozen=True)
class Asked:
    """All questions of a setting, from which a control takes what it puts into one.

    others: the images of another set, for 'images of another set': each with its source.
    """

    episodes: Sequence[Episode]
    seed: int
    others: Sequence[Part] = ()

    @functools.cached_property
    def shuffled(self) -> Mapping[tuple[str, int, int], Part]:
        """(`support` or `query`, question, place) -> the part whose image stands there after a permutation.

        No place keeps its own, unless there is only one. An image that stands in many places may come back to one of
        them, as it may be drawn by chance: to forbid it would make right answers rarer than chance. The permutation of
        each side is one random cycle with its own generator, so that neither the batch size nor the number of
        processes changes it.
        """
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(1,)))
        shown: dict[tuple[str, int, int], Part] = {}
        for side in ('support', 'query'):
            places = [
                (side, i, j)
                for i, episode in enumerate(self.episodes)
                for j, part in enumerate(getattr(episode, side))
                if part.image is not None
            ]
            order = rng.permutation(len(places))
            for here, there in zip(order, np.roll(order, -1), strict=True):
                _, i, j = places[there]
                shown[places[here]] = getattr(self.episodes[i], side)[j]
        return shown

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of all demonstrations, each once, sorted."""
        return tuple(sorted({part.label for episode in self.episodes for part in episode.support} - {''}))

    def rng(self, i: int) -> np.random.Generator:
        """The generator of a question: other questions do not change it."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(2, i)))


Control = Callable[[Asked, int], Episode]  # The i-th question as it is asked in the control.


def asked_as(name: str, episodes: Sequence[Episode], seed: int, others: Sequence[Part] = ()) -> list[Episode]:
    """The questions of a control; others as for `Asked`. KeyError for an unknown name."""
    control, asked = CONTROLS[name], Asked(episodes, seed, others)
    return [control(asked, i) for i in range(len(episodes))]


def shuffled_images(asked: Asked, i: int) -> Episode:
    """The images of other prompts: those of queries among themselves, and those of demonstrations."""
    episode = query_shuffled(asked, i)
    return dataclasses.replace(episode, support=demonstrations_shuffled(asked, i).support)


def demonstrations_shuffled(asked: Asked, i: int) -> Episode:
    """The demonstrations show images of the demonstrations of other prompts. Texts and the query stay."""
    return dataclasses.replace(asked.episodes[i], support=_exchanged(asked, 'support', i))


def query_shuffled(asked: Asked, i: int) -> Episode:
    """The query shows the image of another query. Its demonstrations stay."""
    return dataclasses.replace(asked.episodes[i], query=_exchanged(asked, 'query', i))


def demonstrations_blank(asked: Asked, i: int) -> Episode:
    """The demonstrations show empty images."""
    return _demonstrations(asked.episodes[i], _emptied)


def demonstrations_of_another_set(asked: Asked, i: int) -> Episode:
    """The demonstrations show random images of another set. ValueError if there is none."""
    if not asked.others:
        raise UserError("the control 'images of another set' needs a folder of images: --config.other_images=FOLDER.")
    rng, others = asked.rng(i), asked.others

    def drawn(part: Part) -> Part:
        other = others[int(rng.integers(len(others)))]
        return part if part.image is None else dataclasses.replace(part, image=other.image, of=other.of)

    return _demonstrations(asked.episodes[i], drawn)


def text_only(asked: Asked, i: int) -> Episode:
    """No images at all."""
    episode = _demonstrations(asked.episodes[i], _without_image)
    return dataclasses.replace(episode, query=tuple(map(_without_image, episode.query)))


def no_demonstrations(asked: Asked, i: int) -> Episode:
    """The query alone."""
    return dataclasses.replace(asked.episodes[i], support=())


def random_labels(asked: Asked, i: int) -> Episode:
    """Each demonstration has a random label: any candidate, or any label of the set if there are no candidates."""
    episode, rng = asked.episodes[i], asked.rng(i)
    labels = _labels(asked, episode)
    return _demonstrations(
        episode, lambda part: relabelled(part, labels[int(rng.integers(len(labels)))]) if part.label else part
    )


def flipped_labels(asked: Asked, i: int) -> Episode:
    """Each label becomes another, by one permutation for the same labels: none keeps its own."""
    episode = asked.episodes[i]
    labels = _labels(asked, episode)
    order = np.random.default_rng(np.random.SeedSequence(asked.seed, spawn_key=(3,))).permutation(len(labels))
    other = {labels[here]: labels[there] for here, there in zip(order, np.roll(order, -1), strict=True)}
    return _demonstrations(episode, lambda part: relabelled(part, other[part.label]) if part.label else part)


def format_alone(asked: Asked, i: int) -> Episode:
    """The demonstrations have empty images, and dots for labels: their format without their content."""
    return _demonstrations(
        asked.episodes[i], lambda part: relabelled(_emptied(part), NO_LABEL) if part.label else _emptied(part)
    )


def relevant_first(asked: Asked, i: int) -> Episode:
    """The demonstrations whose label is the right answer come first. A question without such ones stays."""
    return _relevant_at(asked.episodes[i], 0.0)


def relevant_middle(asked: Asked, i: int) -> Episode:
    """They come in the middle."""
    return _relevant_at(asked.episodes[i], 0.5)


def relevant_last(asked: Asked, i: int) -> Episode:
    """They come last."""
    return _relevant_at(asked.episodes[i], 1.0)


# In the order of the columns. A name is what stands above its column.
CONTROLS: Mapping[str, Control] = {
    'shuffled images': shuffled_images,
    'text only': text_only,
    'no demonstrations': no_demonstrations,
    'demonstrations shuffled': demonstrations_shuffled,
    'demonstrations blank': demonstrations_blank,
    'images of another set': demonstrations_of_another_set,
    'query shuffled': query_shuffled,
    'random labels': random_labels,
    'flipped labels': flipped_labels,
    'format alone': format_alone,
    'relevant first': relevant_first,
    'relevant middle': relevant_middle,
    'relevant last': relevant_last,
}
WITHOUT_DEMONSTRATIONS = ('shuffled images', 'text only')  # What can be asked where there are none.
TWO_TOWERS = ('shuffled images',)  # They need an image.
NEW_TEXTS = ('random labels', 'flipped labels', 'format alone')  # Prompts that may be longer than the model's.
DEFAULT = ('shuffled images', 'text only')
# What the share of the few-shot gain needs (paired.py), for `controls` of a task.
GAIN = (*DEFAULT, 'no demonstrations', 'demonstrations shuffled')
ALL = tuple(name for name in CONTROLS if name != 'images of another set')  # That one needs a folder.
GROUPS = dict(all=ALL, gain=GAIN)
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.gif')


@dataclasses.dataclass(frozen=True)
class Blank:
    """Empty images, each in the place of one of another source and of its shape: an `ImageSource`."""

    of: ImageSource

    def frames(self, image: Any) -> Any:
        seen: Any = self.of.frames(image)
        if isinstance(seen, str):  # A source whose images are written.
            return ''
        if isinstance(seen, Unread):
            return Unread(('blank', seen.identity), lambda: np.zeros_like(seen.read()))
        if isinstance(seen, np.ndarray):
            return np.zeros_like(seen)
        return np.zeros((8, 8, 3), np.uint8)  # A file, which is resized to the trunk's size.

    def encoded(self, image: Any) -> bytes:
        file = io.BytesIO()
        PIL.Image.new('RGB', (8, 8)).save(file, 'PNG')
        return file.getvalue()

    def key(self, image: Any) -> Any:
        return 'blank', self.of.key(image)

    def identity(self, image: Any) -> Any:
        return ['blank', self.of.identity(image)]

    def words(self, image: Any) -> str:
        return ''


class ImageFiles:
    """Image files of another set, each by its path: an `ImageSource`."""

    def frames(self, image: pathlib.Path) -> str:
        return str(image)

    def encoded(self, image: pathlib.Path) -> bytes:
        return image.read_bytes()

    def key(self, image: pathlib.Path) -> Any:
        return image

    def identity(self, image: pathlib.Path) -> Any:
        found = image.stat()
        return [image.name, found.st_size, found.st_mtime_ns]

    def words(self, image: pathlib.Path) -> str:
        return ''


def of_folder(folder: str) -> tuple[Part, ...]:
    """The images in a folder, for 'images of another set'; none for ''. ValueError if the folder has no images."""
    if not folder:
        return ()
    files = sorted(path for path in pathlib.Path(folder).rglob('*') if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f'config.other_images is {folder!r}, but there is no image with a suffix of {SUFFIXES}.')
    source = ImageFiles()
    return tuple(Part(file, source, '') for file in files)


def names_of(given: Sequence[str]) -> tuple[str, ...]:
    """The controls that are meant: their names, 'all' or 'gain'. ValueError for another name."""
    names = [name for one in given for name in GROUPS.get(one, (one,))]
    if unknown := [name for name in names if name not in CONTROLS]:
        raise UserError(f'controls are {tuple(given)!r}, but {unknown[0]!r} is none of {(*GROUPS, *CONTROLS)}.')
    return tuple(name for name in CONTROLS if name in names)


def demonstrations(episode: Episode) -> list[tuple[Part, ...]]:
    """The demonstrations of a question; one has several parts if it shows several images, the last with the label."""
    found: list[tuple[Part, ...]] = []
    begin, labelled = 0, any(part.label for part in episode.support)
    for end, part in enumerate(episode.support, 1):
        if part.label or not labelled:
            found.append(episode.support[begin:end])
            begin = end
    return found + ([episode.support[begin:]] if begin < len(episode.support) else [])


def relabelled(part: Part, label: str) -> Part:
    """A demonstration with another label in the place of its own, which is the last such text."""
    before, _, after = part.text.rpartition(part.label)
    return dataclasses.replace(part, text=before + label + after, label=label)


def _demonstrations(episode: Episode, changed: Callable[[Part], Part]) -> Episode:
    return dataclasses.replace(episode, support=tuple(map(changed, episode.support)))


def _without_image(part: Part) -> Part:
    return dataclasses.replace(part, image=None)


def _emptied(part: Part) -> Part:
    return part if part.image is None else dataclasses.replace(part, of=Blank(part.of))


def _exchanged(asked: Asked, side: str, i: int) -> tuple[Part, ...]:
    return tuple(
        dataclasses.replace(part, image=other.image, of=other.of)
        if (other := asked.shuffled.get((side, i, j))) is not None
        else part
        for j, part in enumerate(getattr(asked.episodes[i], side))
    )


def _labels(asked: Asked, episode: Episode) -> tuple[str, ...]:
    """The labels that a demonstration of this question may have: its candidates, if all of its labels are some."""
    spelled = tuple(sorted({episode.written.get(one, (one,))[0] for one in episode.candidates}))
    return spelled if {part.label for part in episode.support} - {''} <= {*spelled} else asked.labels


def _relevant_at(episode: Episode, share: float) -> Episode:
    """The demonstrations of the right answer together, after this share of the others."""
    right = exact.normal(episode.written.get(episode.truth, (episode.truth,))[0])
    every = demonstrations(episode)
    relevant = [one for one in every if one[-1].label and exact.normal(one[-1].label) == right]
    others = [one for one in every if not one[-1].label or exact.normal(one[-1].label) != right]
    place = int(share * len(others))
    ordered = [*others[:place], *relevant, *others[place:]] if relevant else every
    return dataclasses.replace(episode, support=tuple(part for one in ordered for part in one))
