"""Ready sets of examples, of drawings in the sample that comes with the package.

All things here are from the sample's test split: the model that comes with the package never saw them in training, and
no image in the style of the last one.
"""

import dataclasses
import io
from collections.abc import Sequence

import PIL.Image

from flamingo_jax.inputs.images import ImageFormat, decode
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.quickstart import ROOT

SAMPLE = ROOT / 'data' / 'picture_dictionary' / 'sample'
EXAMPLE, ASKED = 'noto', 'fluent-3d'  # Styles of the examples and of the image asked about.
THINGS = dict(
    gorilla='1f98d', mushroom='1f344', rooster='1f413', bus='1f68c', wrench='1f527', fish='1f41f', doughnut='1f369'
)


@dataclasses.dataclass(frozen=True)
class Card:
    """One card of a strip: an image (its frames, encoded; none for text alone), and the text after it."""

    name: str
    frames: Sequence[bytes]
    text: str


@dataclasses.dataclass(frozen=True)
class Ready:
    """A strip to begin with. The text of its last card is open: the model goes on from there."""

    title: str
    about: str
    cards: Sequence[Card]
    candidates: Sequence[str]


def ready_sets() -> list[Ready]:
    """The ready sets."""
    images = ImageSet(str(SAMPLE), 'test', ImageFormat(72))

    def still(thing: str, style: str) -> bytes:
        return images.encoded(next(p for p in images.by_concept[THINGS[thing]] if p.style == style))

    def card(thing: str, text: str = '', style: str = EXAMPLE) -> Card:
        return Card(f'{thing}{"_3d" if style == ASKED else ""}.webp', [still(thing, style)], text)

    def video(thing: str, text: str = '', style: str = EXAMPLE) -> Card:
        return Card(f'{thing}_video{"_3d" if style == ASKED else ""}.png', swaying(still(thing, style)), text)

    animal, plant = 'Question: is it an animal? Answer:', 'Question: which is a plant? Answer:'
    words = ('dax kuv', 'zev gof', 'mip lon')
    return [
        Ready(
            'New words',
            'Three invented words. Only the examples say what they mean.',
            [card('gorilla', words[0]), card('mushroom', words[1]), card('bus', words[2]), card('mushroom', '', ASKED)],
            words,
        ),
        Ready(
            'Kinds',
            'What kind of thing each image shows.',
            [card('gorilla', 'animal'), card('doughnut', 'food'), card('wrench', 'tool'), card('fish', '', ASKED)],
            ('animal', 'food', 'tool'),
        ),
        Ready(
            'Yes or no',
            'A question about each image.',
            [card('gorilla', f'{animal} yes'), card('bus', f'{animal} no'), card('rooster', animal, ASKED)],
            ('yes', 'no'),
        ),
        Ready(
            'Another language',
            'The examples are named in German.',
            [card('gorilla', 'Gorilla'), card('mushroom', 'Fliegenpilz'), card('gorilla', '', ASKED)],
            ('Gorilla', 'Fliegenpilz', 'Hahn'),
        ),
        Ready(
            'Two images',
            'A question about two images at once.',
            [card('gorilla', 'first', ASKED), card('mushroom', 'second', ASKED), Card('', [], plant)],
            ('first', 'second'),
        ),
        Ready(
            'A video',
            'New words for drawings that sway, each a video of eight frames.',
            [video('gorilla', words[0]), video('mushroom', words[1]), video('mushroom', '', ASKED)],
            words[:2],
        ),
    ]


def swaying(drawing: bytes, angles: Sequence[int] = (0, 10, 20, 10, 0, -10, -20, -10)) -> list[bytes]:
    """A video of a drawing that turns to and fro: a frame for each angle in degrees, as PNG."""
    image, frames = decode(drawing).convert('RGB'), []
    for angle in angles:
        out = io.BytesIO()
        image.rotate(angle, PIL.Image.Resampling.BICUBIC, fillcolor='white').save(out, 'PNG')
        frames.append(out.getvalue())
    return frames
