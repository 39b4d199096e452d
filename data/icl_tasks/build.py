"""Draws tasks that only demonstrations tell, in the form of VL-ICL Bench, so that they need no download:

    python -m data.icl_tasks.build --out=DIR --seed=0
    python -m flamingo_jax.evaluate --config=experiments/evaluate/vl_icl.py:drawn --config.data=DIR ...

DIR/PART has `query.json`, `support.json` and images (docs/benchmarks.md). The parts are those of the published set, and
clock arithmetic. The same seed draws the same files. No image of a query is one of a demonstration, and no pair of
numbers either.
"""

from absl import flags

from flamingo_jax import commands
from flamingo_jax.errors import UserError

if __name__ == '__main__':
    flags.DEFINE_string('out', None, 'Folder to draw into: a new one, or an empty one.', required=True)
    flags.DEFINE_integer('seed', 0, 'Another seed draws another set.', lower_bound=0)
    flags.DEFINE_integer('queries', 60, 'Questions of a part.', lower_bound=3, upper_bound=1000)
    commands.start(__doc__)

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

from data.icl_tasks.drawing import COLOURS, SHAPES, SIZES, Picture, jittered
from flamingo_jax.files import write_whole
from flamingo_jax.tasks.nonce import nonces

SUPPORT = 80  # Demonstrations to draw from, if there are enough.
OPERATORS: dict[str, Callable[[int, int], int]] = {'+': int.__add__, '-': int.__sub__, 'x': int.__mul__}
CLOCK = 12
MIDDLE = (0.5, 0.5)
LETTERS = 'abcdefghkmnprstuvwxyz'

Records = list[dict[str, Any]]


class Part:
    """The folder of a part: draws with a generator of its own, and keeps the images that records name."""

    def __init__(self, folder: pathlib.Path, name: str, seed: int, progress: Callable[[], Any] = lambda: None):
        self.rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(list(PARTS).index(name),)))
        self.name, self._folder, self._progress = name, folder, progress

    def keep(self, picture: Picture, where: str) -> str:
        """Writes an image, and returns its path as records have it."""
        path = f'{self.name}/{where}.png'
        (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
        picture.image.save(self._folder / path)
        self._progress()
        return path

    def write(self, queries: Records, support: Records) -> None:
        """Writes the two files."""
        for name, records in (('query', queries), ('support', support)):
            text = json.dumps([dict(id=f'{self.name}_{i}', **record) for i, record in enumerate(records)], indent=1)
            write_whole(self._folder / self.name / f'{name}.json', text.encode())

    def choice(self, some: Any) -> Any:
        """One of some."""
        some = list(some)
        return some[int(self.rng.integers(len(some)))]


def build(out: pathlib.Path, seed: int, queries: int) -> None:
    """Draws every part. UserError if the folder has something in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f'{out} is not empty. Give a new folder, or remove it.')
    with tqdm(unit=' images') as bar:
        for name, draw in PARTS.items():
            bar.set_description(name)
            draw(Part(out, name, seed, bar.update), queries)


def _of_two_numbers(
    part: Part,
    queries: int,
    pairs: list[tuple[int, int]],
    draw: Callable[[Part, int, int], list[Picture]],
    modulo: int | None = None,
) -> None:
    """Results by three operators: each pair of numbers of a query is asked by each operator."""
    ordered = [pairs[i] for i in part.rng.permutation(len(pairs))]
    number = min(-(-queries // 3), len(pairs) // 3)

    def result(operator: str, a: int, b: int) -> int:
        value = OPERATORS[operator](a, b)
        return value if modulo is None else value % modulo

    records: dict[str, Records] = dict(query=[], support=[])
    split = dict(query=ordered[:number], support=ordered[number : number + SUPPORT])
    for where, some in split.items():
        for i, (a, b) in enumerate(some):
            drawn = draw(part, a, b)
            images = [part.keep(picture, f'{where}/{i}_{j}') for j, picture in enumerate(drawn)]
            asked = dict(image=images, question='What is the result?')
            results = {operator: result(operator, a, b) for operator in OPERATORS}
            if where == 'support':
                records[where].append(dict(asked, answer=list(results.values())))
            else:
                records[where] += [dict(asked, answer=value, operator=by) for by, value in results.items()]
    part.write(records['query'][:queries], records['support'])


# Scores read no sign before a number, so no difference is below zero.
NUMBERS = [(a, b) for a in range(10) for b in range(a + 1)]


def operator_induction(part: Part, queries: int) -> None:
    """`2 ? 7` in one image."""

    def draw(part: Part, a: int, b: int) -> list[Picture]:
        picture = Picture()
        picture.text(f'{a} ? {b}', jittered(part.rng, MIDDLE, 0.08), 0.3)
        return [picture]

    _of_two_numbers(part, queries, NUMBERS, draw)


def interleaved(part: Part, queries: int) -> None:
    """A number in each of two images."""

    def draw(part: Part, a: int, b: int) -> list[Picture]:
        pictures = [Picture(), Picture()]
        for picture, number in zip(pictures, (a, b), strict=True):
            picture.text(str(number), jittered(part.rng, MIDDLE, 0.08), 0.5)
        return pictures

    _of_two_numbers(part, queries, NUMBERS, draw)


def clock(part: Part, queries: int) -> None:
    """An hour on a clock, `?` and a number; 0 to 11 is what remains of the result after whole turns of the hand."""

    def draw(part: Part, a: int, b: int) -> list[Picture]:
        picture = Picture()
        picture.clock(a, jittered(part.rng, (0.33, 0.5), 0.03), 0.28)
        picture.text(f'? {b}', jittered(part.rng, (0.8, 0.5), 0.03), 0.24)
        return [picture]

    _of_two_numbers(part, queries, [(a, b) for a in range(CLOCK) for b in range(1, 10)], draw, CLOCK)


def textocr(part: Part, queries: int) -> None:
    """Three invented words, and a red box around one."""
    words = _words(part.rng, 3 * (queries + SUPPORT))
    records: dict[str, Records] = dict(query=[], support=[])
    for where, number in (('query', queries), ('support', SUPPORT)):
        for i in range(number):
            picture, boxed = Picture(), int(part.rng.integers(3))
            three = [words.pop() for _ in range(3)]
            for j, word in enumerate(three):
                box = picture.text(word, jittered(part.rng, (0.5, 0.2 + 0.3 * j), 0.04), 0.17)
                if j == boxed:
                    picture.box(box, 0.03)
            image = part.keep(picture, f'{where}/{i}')
            records[where].append(dict(image=[image], question='What is in the red box?', answer=three[boxed]))
    part.write(records['query'], records['support'])


def clevr(part: Part, queries: int) -> None:
    """Two to six shapes on a grid, of which some have what the question names."""
    records: dict[str, Records] = dict(query=[], support=[])
    for where, number in (('query', queries), ('support', SUPPORT)):
        for i in range(number):
            picture, things = Picture(), []
            for cell in part.rng.choice(9, int(part.rng.integers(2, 7)), replace=False):
                thing = dict(shape=part.choice(SHAPES[:3]), colour=part.choice([*COLOURS][:4]), size=part.choice(SIZES))
                at = jittered(part.rng, ((cell % 3 + 0.5) / 3, (cell // 3 + 0.5) / 3), 0.015)
                picture.shape(thing['shape'], at, SIZES[thing['size']] * 0.85, COLOURS[thing['colour']])
                things.append(thing)
            what = part.choice(('shape', 'colour', 'size'))
            value = part.choice(things)[what]
            image = part.keep(picture, f'{where}/{i}')
            count = sum(thing[what] == value for thing in things)
            records[where].append(dict(image=[image], question=f'{what}: {value}', answer=count))
    part.write(records['query'], records['support'])


def matching_mi(part: Part, queries: int) -> None:
    """Two images belong together if they show one shape, whatever its colour, size and turn."""

    def pair(where: str, answer: str) -> dict[str, Any]:
        first, other = (SHAPES[j] for j in part.rng.permutation(len(SHAPES))[:2])
        colours = [[*COLOURS][j] for j in part.rng.permutation(len(COLOURS))[:2]]
        shapes = (first, first if answer == 'yes' else other)
        images = [
            part.keep(_one(part, shape, colour), f'{where}_{answer}_{j}')
            for j, (shape, colour) in enumerate(zip(shapes, colours, strict=True))
        ]
        return dict(image=images, question='Do they belong together?', answer=answer)

    asked = [pair(f'query/{i}', ('yes', 'no')[i % 2]) for i in range(queries)]
    support = [dict(same=pair(f'support/{i}', 'yes'), diff=pair(f'support/{i}', 'no')) for i in range(SUPPORT // 2)]
    part.write(asked, support)


def open_mi(part: Part, queries: int) -> None:
    """Invented names for shapes of a colour: five classes for each query, with five images each, and one is asked."""
    kinds = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    asked: Records = []
    for i in range(queries):
        names = nonces(part.rng, 5)
        five = [kinds[j] for j in part.rng.permutation(len(kinds))[:5]]
        support = {
            name: dict(images=[part.keep(_one(part, *kind), f'support/{i}_{j}_{k}') for k in range(5)])
            for j, (name, kind) in enumerate(zip(names, five, strict=True))
        }
        right = int(part.rng.integers(5))
        image = part.keep(_one(part, *five[right]), f'query/{i}')
        asked.append(dict(image=[image], question='This is a', answer=names[right], classes=names, support=support))
    part.write(asked, [])


def _one(part: Part, shape: str, colour: str) -> Picture:
    """A shape somewhere, of some size and turn."""
    picture, rng = Picture(), part.rng
    picture.shape(shape, jittered(rng, MIDDLE, 0.12), rng.uniform(0.16, 0.27), COLOURS[colour], rng.uniform(-0.4, 0.4))
    return picture


def _words(rng: np.random.Generator, number: int) -> list[str]:
    """Different words of four to six letters without a meaning."""
    words: dict[str, None] = {}
    while len(words) < number:
        words[''.join(LETTERS[i] for i in rng.integers(len(LETTERS), size=int(rng.integers(4, 7))))] = None
    return list(words)


PARTS: dict[str, Callable[[Part, int], None]] = dict(
    open_mi=open_mi,
    operator_induction=operator_induction,
    operator_induction_interleaved=interleaved,
    operator_induction_clock=clock,
    textocr=textocr,
    clevr=clevr,
    matching_mi=matching_mi,
)


def main() -> None:
    """Draws, and says how to ask."""
    out = pathlib.Path(flags.FLAGS.out)
    build(out, flags.FLAGS.seed, flags.FLAGS.queries)
    print(f'Ask it: python -m flamingo_jax.evaluate --config=experiments/evaluate/vl_icl.py:drawn --config.data={out}')


if __name__ == '__main__':
    main()
