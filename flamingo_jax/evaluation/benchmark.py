"""A benchmark: questions about images in files, each with its references. Each benchmark is one file in benchmarks/.

    @dataclasses.dataclass
    class COCO(Captions):
        def read(self, folder, split): ...yields an Item for each image

A config file in experiments/evaluate/ then has `task(COCO, shots=(0, 4, 8, 16, 32), ...)`. All benchmarks share the
code that draws examples, writes prompts and scores answers.

In the paper some benchmarks are DEV: hyper-parameters were tuned on part of their training data. The others are held
out: nothing was tuned on them (section 3). `query_split='dev'` asks the questions that may be tuned on.
"""

import collections
import dataclasses
import functools
import hashlib
import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import jax
import numpy as np
import PIL.Image
from tqdm import tqdm

from flamingo_jax import commands
from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.prompts import PAPER, Prompts
from flamingo_jax.evaluation.published import on_disk
from flamingo_jax.evaluation.rices import BY_CLIP, RICES, Clip
from flamingo_jax.evaluation.task import OPEN_ENDED, Task
from flamingo_jax.inputs.images import ImageError, ImageFormat, Unread, of_decoder, opened, to_frames
from flamingo_jax.inputs.videos import has_no_head, to_video
from flamingo_jax.parallel import processes
from flamingo_jax.tasks.episode import Episode, Part
from flamingo_jax.tasks.nearest import most_similar

DEV = 'dev'


@dataclasses.dataclass(frozen=True)
class Video:
    """A part of a video."""

    file: pathlib.Path
    begin: float = 0.0  # In seconds.
    end: float | None = None  # None is the end of the video.


Shown: TypeAlias = pathlib.Path | Video


@dataclasses.dataclass(frozen=True)
class Item:
    """One question of a benchmark, or one example.

    Attributes:
      id: identifies the question, as in the benchmark's own files.
      image: an image's file or a video; None for a question without an image.
      text: the text between image and answer, by the benchmark's `prompts`.
      answer: the right answer, as examples and reports show it; None if the set does not publish it.
      references: what the metric compares answers with; None is the answer alone.
      candidates, written, types: as in `few_shot.episode.Episode`.
    """

    id: str
    image: Shown | None
    text: str
    answer: str | None
    references: Any = None
    candidates: tuple[str, ...] = ()
    written: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    types: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def file(self) -> pathlib.Path | None:
        """The file of the image or video."""
        return self.image.file if isinstance(self.image, Video) else self.image


@dataclasses.dataclass(frozen=True)
class Files:
    """Images and videos in files: an `ImageSource`."""

    format: ImageFormat
    frames_of_video: int
    a_second: float

    def frames(self, image: Shown) -> Any:
        # Many questions show it, and decoding a video takes longer than answering.
        return Unread((image, *self.identity(image)), functools.partial(self._read, image))

    def encoded(self, image: Shown) -> bytes:
        if not isinstance(image, Video):
            return image.read_bytes()
        file = io.BytesIO()
        PIL.Image.fromarray(self._video(image, 1)[0]).save(file, 'PNG')
        return file.getvalue()

    def key(self, image: Shown) -> Any:
        # All parts of a video are one: they show the same things.
        return image.file if isinstance(image, Video) else image

    def words(self, image: Shown) -> str:
        return ''

    def identity(self, image: Shown) -> list[Any]:
        """What the features of an image depend on, except for the trunk: if a file changes, this does too."""
        file = self.key(image)
        if file not in self._kept:  # Each example is asked about with each question.
            found = file.stat()
            self._kept[file] = [file.name, found.st_size, found.st_mtime_ns]
        about = list(self._kept[file])
        if isinstance(image, Video):
            about += [image.begin, image.end, self.frames_of_video, self.a_second]
        return about

    @functools.cached_property
    def _kept(self) -> dict[pathlib.Path, list[Any]]:
        return {}

    def _read(self, image: Shown) -> np.ndarray:
        try:
            if isinstance(image, Video):
                return self._video(image, self.frames_of_video)
            return to_frames(image, self.format.size, self.format.fit)
        except ImageError as error:
            raise ImageError(
                f'{error} If the file is damaged, replace it or remove its questions: skip_missing=True in the task '
                'leaves out only those without a whole head.'
            ) from error

    def _video(self, video: Video, frames: int) -> np.ndarray:
        where = dict(apart=1 / self.a_second, segment=(video.begin, video.end))
        return to_video(video.file, frames, self.format.size, self.format.fit, **where)


@dataclasses.dataclass
class Benchmark(Task):
    """Asks each query once, in random order, up to the evaluation's number. Examples come from the support split."""

    support_split: str = 'train'
    answers: tuple[str, ...] = (OPEN_ENDED,)
    shots: tuple[int, ...] = (0, 4, 8, 16, 32)  # As in the paper.
    text_examples: int = 2  # As in the paper.
    support_size: int = 2048  # Number of support items to draw examples from (paper, appendix B.1); 0 is all.
    support_seed: int = 0  # Seed of the choice of these items.
    prompts: Any = PAPER  # `Prompts`, or their fields as a config has them.
    dev_size: int = 0  # Questions of the support split that the split 'dev' asks; 0 if the benchmark is held out.
    frames: int = 30  # Of a video (paper, appendix B.1.2).
    a_second: float = 3.0  # Fewest frames a second; of a longer video, the middle is shown.
    skip_missing: bool = False  # Leave out questions whose file is gone or has no head: videos vanish from YouTube.

    may_support: ClassVar[tuple[str, ...]] = ('random', 'fixed', RICES, BY_CLIP)
    ids_of_all_splits: ClassVar[bool] = False  # Whether no two splits have the same id, as the set publishes them.

    def __post_init__(self):
        """Errors as for `Prompts`."""
        if not isinstance(self.prompts, Prompts):
            self.prompts = Prompts(**self.prompts)

    def read(self, folder: pathlib.Path, split: str) -> Iterable[Item]:
        """The items of a split, from the benchmark's own files.

        Raises:
          FileNotFoundError, ValueError: a file is missing or has another format; the message names it.
        """
        raise NotImplementedError

    def draw(self, items: Sequence[Item], number: int, seed: int) -> list[Item]:
        """Random items in their order, so many of them; all for 0. Without one of them, the others stay."""
        if not 0 < number < len(items):
            return list(items)
        return [items[i] for i in sorted(np.argsort(_mixed(_keys(items), seed), kind='stable')[:number])]

    def draw_support(self, items: Sequence[Item]) -> list[Item]:
        """The items of the support split that random examples are drawn from."""
        return self.draw(items, self.support_size, self.support_seed)

    def prepare(self, pools: Pools) -> None:
        """Reads both splits, and checks that every image exists and that no example shows what is asked."""
        self.left_out = {}  # pyright: ignore[reportAttributeAccessIssue]  # Of this one alone.
        clip = pools.clip if BY_CLIP in self.support else None  # Refuses at once if there is none.
        folder = on_disk(self.data or pools.data)
        support_folder = on_disk(self.support_data or folder)
        # Without examples, a set whose training split was not downloaded can be asked.
        needed = self.support_split and (self.most or self.query_split in (DEV, self.support_split))
        support = self._read(support_folder, self.support_split) if needed else []
        if self.query_split == DEV:
            queries, support = self.divided(support)
        elif (folder, self.query_split) == (support_folder, self.support_split):
            queries = support
        else:
            queries = self._read(folder, self.query_split)
            _refuse_shared(queries, self.query_split, support, self.support_split, ids=self.ids_of_all_splits)
        self._queries = self.present(queries, self.query_split)
        # All items are looked at only if some may be missing: a training split can have a million files.
        support = self.present(support, self.support_split) if self.skip_missing or clip else support
        self._whole_support = support
        support = self.draw_support(support)
        self._support = self.present(support, self.support_split)
        self._check()
        codes = {file: code for code, file in enumerate({item.file for item in self._support} - {None})}
        self._codes = np.array([codes.get(item.file, -1) for item in self._support], int)
        self._code_of = codes
        self._files = Files(pools.image_format, self.frames, self.a_second)
        # An evaluation's seed draws the examples alone, so that the queries of two seeds can be compared one by one.
        self._order = np.argsort(_mixed(_keys(self._queries), 2), kind='stable')
        self._support_keys = _keys(self._support)
        self._examples = [self._example(item) for item in self._support]
        self._pools = pools
        if {RICES, BY_CLIP} & {*self.support} and any(i.image is None for i in (*self._queries, *support)):
            raise UserError("support 'rices' compares images, but some questions have none. Use 'random'.")

    def _check(self) -> None:
        """ValueError if the examples do not suffice, or the queries cannot be answered or scored."""
        if any(item.answer is None for item in self._support):
            raise UserError(
                f'the support split {self.support_split!r} has questions without answers, which cannot be examples.'
            )
        # An image can have several questions, and the others may reveal the answer to one.
        number = collections.Counter(item.file for item in self._support)
        often = max((number[item.file] for item in self._queries if item.file), default=0)
        if len(self._support) - often < self.most:
            raise UserError(
                f'{self.most} shots need {self.most} examples, but besides the query there are only '
                f'{len(self._support) - often} in the split {self.support_split!r}. Use fewer shots.'
            )
        if set(self.answers) - {OPEN_ENDED} and not all(item.candidates for item in self._queries):
            raise UserError(f'it has no candidates to rank. Set its answers to ({OPEN_ENDED!r},).')
        if self.likelihoods and OPEN_ENDED in self.answers:
            raise UserError(f'its score needs the likelihoods of all candidates. Remove {OPEN_ENDED!r} from answers.')
        unanswered = [item.id for item in self._queries if item.answer is None and item.references is None]
        self.scored = not unanswered  # pyright: ignore[reportAttributeAccessIssue]  # Of this one alone.
        if unanswered and len(unanswered) < len(self._queries):
            raise UserError(
                f'{len(unanswered)} of {len(self._queries)} questions of the split {self.query_split!r} have no '
                f'answer, {unanswered[0]} for one. Complete the annotations, or remove these questions.'
            )
        if self.scored and not self.likelihoods:
            # A metric that needs a library or data which are missing says so now, not after the work.
            one = self._queries[0]
            self.metric({one.id: one.answer}, {one.id: (one.answer,) if one.references is None else one.references})

    def _read(self, folder: pathlib.Path, split: str) -> list[Item]:
        try:
            items = list(self.read(folder, split))
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            if commands.is_mistake(error):  # The reader said what is wrong.
                raise
            raise UserError(
                f'the files of the split {split!r} in {folder} are not as the set publishes them: '
                f'{type(error).__name__}, {error}. Download them again.'
            ) from error
        if not items:
            raise UserError(f'the split {split!r} of {folder} has no questions.')
        (id, times), *_ = collections.Counter(item.id for item in items).most_common(1)
        if times > 1:
            raise UserError(f'the split {split!r} of {folder} has the question {id!r} twice. Remove one.')
        return items

    def present(self, items: Sequence[Item], split: str) -> list[Item]:
        """The items of a split whose image exists; FileNotFoundError if others may not be left out.

        Where some may be left out, files that have no whole head count as missing, too.
        """
        videos = {item.file for item in items if isinstance(item.image, Video)}
        there = {
            file: file.is_file() and not (self.skip_missing and _is_damaged(file, file in videos))
            for file in tqdm(
                {item.file for item in items} - {None},
                unit=' files',
                desc=f'{split} files',
                delay=2,
                disable=jax.process_index() > 0,
            )
        }
        present = [item for item in items if there.get(item.file, True)]
        if len(present) == len(items):
            return present
        missing = next(item for item in items if not there.get(item.file, True))
        how, others = 'missing or damaged' if self.skip_missing else 'missing', len(items) - len(present) - 1
        what = f'the image {missing.file} of question {missing.id} is {how}'
        if not self.skip_missing or not present:
            raise FileNotFoundError(
                f'Task {self.name}: {what}{f", and {others} more" if others else ""}. Put it there, remove the '
                'question, or set skip_missing=True in the task to leave all such questions out.'
            )
        files = sum(not found for found in there.values())
        self.left_out = {**self.left_out, split: dict(questions=len(items) - len(present), files=files)}  # pyright: ignore[reportAttributeAccessIssue]  # Of this one alone.
        processes.say(
            f'Task {self.name}: {len(items) - len(present)} of {len(items)} questions of the split {split!r} are left '
            f'out: {what}.'
        )
        return present

    def divided(self, items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
        """The questions to tune on, and what has other images in the same split: examples for them.

        ValueError if the benchmark is held out.
        """
        if not self.dev_size:
            raise UserError(f'it is held out in the paper: it has no split {DEV!r} to tune on.')
        queries = self.draw(items, self.dev_size, 1)
        asked = {item.file for item in queries}
        return queries, [item for item in items if item.file not in asked]

    def _pooled(self, pools: Pools, items: Sequence[Item], by: Clip | None = None) -> np.ndarray:
        """A row for each item, by the model's trunk or by another. An image of several items is encoded once."""
        images = list(dict.fromkeys(item.image for item in items))
        files = self._files if by is None else dataclasses.replace(self._files, format=by.image_format)
        rows = dict(zip(images, pools.pooled(images, files, by), strict=True))
        return np.stack([rows[item.image] for item in items])

    @functools.cached_property
    def _asked(self) -> list[Item]:
        """The queries that are asked, in order."""
        return [self._queries[place] for place in self._order[: self.number(self._pools.episodes)]]

    @functools.cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the queries that are asked, in order, and of all examples; computed for the first that needs them."""
        return self._pooled(self._pools, self._asked), self._pooled(self._pools, self._support)

    @functools.cached_property
    def _most_similar_by_clip(self) -> np.ndarray:
        """For each query that is asked, in order, its examples of the whole support split, the most similar last.

        Places in `_whole_support` [queries most]. A split can have half a million questions about fewer images.
        """
        of_image: dict[Shown, list[int]] = {}
        for place, item in enumerate(self._whole_support):
            of_image.setdefault(item.image, []).append(place)
        images, of_file = list(of_image), collections.defaultdict(list)
        for place, places in enumerate(of_image.values()):
            of_file[self._whole_support[places[0]].file].append(place)
        clip = self._pools.clip
        rows = self._pooled(self._pools, [self._whole_support[places[0]] for places in of_image.values()], clip)
        queries, n = self._pooled(self._pools, self._asked, clip), min(self.most, len(images))
        chosen = np.zeros((len(queries), self.most), int)
        for i, query in enumerate(self._asked):
            likeness = rows @ queries[i]
            own = of_file.get(query.file, [])
            likeness[own] = -np.inf
            nearest = np.argpartition(-likeness, n - 1)[:n]
            nearest = nearest[np.argsort(-likeness[nearest], kind='stable')]
            found = [place for j in nearest if j not in own for place in of_image[images[j]]]
            chosen[i] = found[: self.most][::-1]
        return chosen

    def number(self, episodes: int) -> int:
        return min(episodes, len(self._queries))

    def episode(self, i: int, shots: int, support: str, answers: str, seed: int) -> Episode:
        """The i-th query in random order, with examples of other images."""
        query = self._queries[int(self._order[i])]
        other = self._codes != self._code_of.get(query.file, -2)
        if support == BY_CLIP and shots:
            chosen = self._most_similar_by_clip[i][self.most - shots :]
        elif support == RICES and shots:
            queries, rows = self._rows
            found = most_similar(queries[i], rows, shots + int((~other).sum()))
            chosen = [j for j in found if other[j]]
            chosen = chosen[len(chosen) - shots :]
        else:  # More shots begin with fewer. An example that shows the query's image is left out.
            order = _mixed(self._support_keys, 3, seed, *([] if support == 'fixed' else [query.id]))
            order[~other] = np.iinfo(np.uint64).max
            chosen = np.argpartition(order, shots - 1)[:shots] if shots else np.zeros(0, int)
            chosen = chosen[np.argsort(order[chosen], kind='stable')]
        if support == BY_CLIP:
            examples = [self._example(self._whole_support[j]) for j in chosen] if shots else []
        else:
            examples = [self._examples[j] for j in chosen]
        return Episode(
            support=tuple(examples),
            query=(Part(query.image, self._files, query.text),),
            truth=query.answer or '',
            candidates=query.candidates,
            references=query.references,
            id=query.id,
            clusters=() if query.file is None else (str(query.file),),
            written=query.written,
            form=self.prompts.answer,
            ends=self.prompts.ends,
            between=self.prompts.between if answers == OPEN_ENDED else '',
            types=query.types,
        )

    def _example(self, item: Item) -> Part:
        label = self.learnt(item)[0]
        return Part(item.image, self._files, item.text + self.prompts.answer.format(answer=label), item.id, label)

    def learnt(self, item: Item) -> Sequence[str]:
        """The answers to learn when a model is fine-tuned; an example shows the first."""
        answer = item.answer or ''
        return (item.written.get(answer, (answer,))[0],)

    def read_answer(self, text: str) -> str:
        """The answer to a question, by the prompts."""
        return self.prompts.read_answer(text)


def _is_damaged(file: pathlib.Path, video: bool) -> bool:
    """Whether a file is empty or its head is damaged. The rest is not read."""
    if video:
        return has_no_head(file)
    with file.open('rb') as content:
        try:
            opened(content)
        except Exception as error:
            if not of_decoder(error):  # A disk that fails says nothing of the image.
                raise
            return True
    return False


def _keys(items: Sequence[Item]) -> np.ndarray:
    """A number for each item, from its id [n]."""
    return np.array([_number(item.id) for item in items], np.uint64)


def _number(*about: Any) -> int:
    return int.from_bytes(hashlib.blake2b(repr(about).encode(), digest_size=8).digest(), 'little')


def _mixed(keys: np.ndarray, *seeds: Any) -> np.ndarray:
    """Random numbers of items, by which they are drawn: those that are the least. Each depends on its own item alone.

    So if one goes, as videos vanish from YouTube, the others keep their order. Nearly all prompts that did not show it
    stay as they are, and so do the answers to them that are kept.
    """
    # splitmix64 (Steele, Lea and Flood 2014).
    x = keys ^ np.uint64(_number(*seeds))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x


def _refuse_shared(
    queries: Sequence[Item], query_split: str, support: Sequence[Item], support_split: str, ids: bool
) -> None:
    """ValueError if two different splits show the same images or, with `ids`, have the same questions."""
    both = {item.image for item in queries} & {item.image for item in support} - {None}
    shared = 'images', sorted(str(image.file if isinstance(image, Video) else image) for image in both)
    if ids and not both:
        shared = 'questions', sorted({item.id for item in queries} & {item.id for item in support})
    what, which = shared
    if which:
        raise UserError(
            f'the splits {query_split!r} (asked) and {support_split!r} (examples) share {len(which)} {what}, such as '
            f'{which[0]}. Remove these questions from one of them, or give both the same split: then no example shows '
            "the query's image."
        )
