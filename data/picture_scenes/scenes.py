"""Scenes: a few drawings of the picture dictionary on one white canvas, with questions that only the canvas answers.

    place   2 to 4 different things in the corners    what is in the top left? dog        where is the dog? top left
    count   1 to 5 of one thing, 0 to 3 of another    how many: dog? three                how many: taxi? one

Pairs of things are held out: two things that share a scene in the test split never share one in training, so that a
scene cannot be memorised. The things themselves are few, and all are in training.
"""

import dataclasses
import random
from collections.abc import Mapping, Sequence

from PIL import Image

from data.picture_dictionary.picture_dictionary_dataset_builder import fraction
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import QUARTERS

# English names of training concepts of the dictionary: single words for things that look different. Chosen by eye.
ANIMALS = (
    *('frog', 'penguin', 'flamingo', 'owl', 'duck', 'peacock', 'spider', 'snail', 'butterfly', 'crab', 'octopus'),
    *('dolphin', 'turtle', 'dog', 'pig', 'panda', 'kangaroo', 'giraffe', 'elephant', 'koala', 'lion', 'cow'),
    *('hedgehog', 'bat', 'unicorn', 'fox', 'monkey', 'cat'),
)
FOOD = (
    *('strawberry', 'banana', 'watermelon', 'pineapple', 'pear', 'popcorn', 'waffle', 'hamburger', 'taco', 'egg'),
    *('pretzel', 'bacon', 'pizza', 'candy', 'cupcake', 'cookie', 'lollipop', 'eggplant', 'broccoli', 'avocado'),
    *('carrot', 'cucumber'),
)
VEHICLES = (
    *('airplane', 'parachute', 'bicycle', 'taxi', 'tractor', 'skateboard', 'ambulance', 'sailboat', 'ship'),
    'satellite',
)
THINGS = (*ANIMALS, *FOOD, *VEHICLES)

CANVAS = 160  # Height and width in px.
NUMBERS = ('one', 'two', 'three', 'four', 'five')


@dataclasses.dataclass(frozen=True)
class Placed:
    """A thing in a square of `size` px whose upper left corner is at (left, top)."""

    thing: str
    left: int
    top: int
    size: int


@dataclasses.dataclass(frozen=True)
class Scene:
    """A scene. `composition` describes it without sizes and jitter. `questions` are pairs of question and answer."""

    composition: str
    placed: tuple[Placed, ...]
    questions: tuple[tuple[str, str], ...]


def split_of(one: str, other: str) -> str:
    """The split in which these two may share a scene, in either order: 'train' (50 %), 'validation' (20 %), 'test'.

    The test has many pairs, so that there are enough sets of three and four with test pairs only.
    """
    position = fraction('scene:', ' '.join(sorted((one, other))))
    return 'train' if position < 0.5 else 'validation' if position < 0.7 else 'test'


class Compositions:
    """Draws the scenes of one split.

    Attributes:
      together: 2, 3, 4 -> the sets of that many things of which every two may share a scene.
      alone: number word -> the things of which this number may be alone in a scene.
    """

    def __init__(self, things: Sequence[str], split: str):
        """ValueError if there are too few things."""
        met = {(one, other) for one in things for other in things if one < other and split_of(one, other) == split}
        self.together = {2: sorted(met)}
        for number in (3, 4):
            self.together[number] = [
                (*others, thing)
                for others in self.together[number - 1]
                for thing in sorted(things)
                if all((other, thing) in met for other in others)
            ]
        # A thing alone is paired with its number: 'three dogs' can be held out.
        self.alone = {number: [thing for thing in things if split_of(thing, number) == split] for number in NUMBERS}
        if not all(self.together.values()) or not all(self.alone.values()):
            raise UserError(
                f'{len(things)} things are too few for scenes of the split {split!r}: {sorted(things)}. '
                'Use a dictionary with more.'
            )

    def place(self, rng: random.Random) -> Scene:
        """Different things in different corners."""
        chosen = rng.choice(self.together[rng.randint(2, 4)])
        cells = sorted(rng.sample(range(4), len(chosen)))
        things = rng.sample(chosen, len(chosen))
        placed = tuple(_put(rng, thing, cell, 2, (48, 76)) for thing, cell in zip(things, cells, strict=True))
        where = {thing: QUARTERS[cell] for thing, cell in zip(things, cells, strict=True)}
        questions = [(f'what is in the {place}?', thing) for thing, place in where.items()]
        questions += [(f'where is the {thing}?', place) for thing, place in where.items()]
        return Scene(' + '.join(f'{place} {thing}' for thing, place in where.items()), placed, tuple(questions))

    def count(self, rng: random.Random) -> Scene:
        """Some of one thing and some or none of another, scattered."""
        first, second = rng.randint(1, 5), rng.randint(0, 3)
        if second:
            numbers = dict(zip(rng.sample(rng.choice(self.together[2]), 2), (first, second), strict=True))
        else:
            numbers = {rng.choice(self.alone[NUMBERS[first - 1]]): first}
        things = [thing for thing, number in numbers.items() for _ in range(number)]
        cells = rng.sample(range(9), len(things))
        placed = tuple(_put(rng, thing, cell, 3, (36, 50)) for thing, cell in zip(things, cells, strict=True))
        words = {thing: NUMBERS[number - 1] for thing, number in numbers.items()}
        questions = tuple((f'how many: {thing}?', number) for thing, number in words.items())
        return Scene(' + '.join(f'{number} {thing}' for thing, number in words.items()), placed, questions)


def _put(rng: random.Random, thing: str, cell: int, cells_a_side: int, sizes: tuple[int, int]) -> Placed:
    """A random place and size within a cell. Cells do not overlap, so neither do things."""
    room, size = CANVAS // cells_a_side, rng.randint(*sizes)
    left, top = cell % cells_a_side * room, cell // cells_a_side * room
    return Placed(thing, left + rng.randint(0, room - size), top + rng.randint(0, room - size), size)


def trimmed(image: Image.Image) -> Image.Image:
    """The image without its white margin, whose width depends on the artist."""
    inked = image.convert('L').point(lambda grey: 255 * (grey < 243))  # Encoding makes white slightly uneven.
    return image.crop(inked.getbbox())


def draw(scene: Scene, drawings: Mapping[str, Image.Image]) -> Image.Image:
    """The canvas [CANVAS CANVAS] in RGB. `drawings`: thing -> its drawing, trimmed."""
    canvas = Image.new('RGB', (CANVAS, CANVAS), 'white')
    for placed in scene.placed:
        drawing = drawings[placed.thing]
        width, height = (max(1, round(side * placed.size / max(drawing.size))) for side in drawing.size)
        drawing = drawing.resize((width, height), Image.Resampling.LANCZOS)
        canvas.paste(drawing, (placed.left + (placed.size - width) // 2, placed.top + (placed.size - height) // 2))
    return canvas
