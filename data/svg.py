"""Drawings as SVG with names or titles: what is common to `icons/` and `clip_art/`.

A drawing is kept if a phrase that is said of it names a thing. Which phrases do is a table that a build makes once
(`data/drawings.py`) and gives to all workers.
"""

import io
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import PIL.Image
import PIL.ImageChops

from flamingo_jax.building.document import Document
from flamingo_jax.errors import UserError

SIZE = 128  # Pixels, as in the picture dictionary.
# An image or a style that is not in the file itself: nothing else is read.
OUTSIDE = re.compile(r"""(?:xlink:)?href\s*=\s*("\s*(?!#|data:|\s)[^"]*"|'\s*(?!#|data:|\s)[^']*')""", re.IGNORECASE)


class Thing(NamedTuple):
    """What a phrase names."""

    concept: str
    name: str
    split: str
    category: str
    subcategory: str
    definition: str  # '' if there is none.
    names: dict[str, str]  # Language -> name, if the thing is in the picture dictionary.
    heldout_languages: tuple[str, ...]


Things = Mapping[str, Thing]  # By phrase, in lower case.


def document(id: str, image: bytes, thing: Thing, about: Mapping[str, Any], sentence: str = '') -> Document:
    """An image and a text: the sentence that was said of it; without one, the thing's name, or its definition too.

    about: the style, the artist, the licence and the source.
    """
    name = f'{thing.name[0].upper()}{thing.name[1:]}'
    if not sentence:
        defined = thing.definition and zlib.crc32(id.encode()) % 2
        sentence = f'{name}: {thing.definition}.' if defined else f'{name}.'
    known = thing._asdict()
    meta = dict(about) | {key: known[key] for key in known if key not in ('name', 'definition')} | dict(name=thing.name)
    meta |= dict(language='en')
    return Document(id, ['', sentence], [image, b''], [0.0, 1.0], meta=json.dumps(meta, ensure_ascii=False))


def draw(svg: str, on_page: bool = False) -> bytes:
    """A WebP of SIZE pixels, in the middle of a white square.

    on_page: what is drawn may be small on a large page. It is cut out and enlarged.

    Raises:
      ValueError: it cannot be drawn, or nothing is to be seen.
    """
    import resvg_py  # Only drawings need it.

    side = (8 if on_page else 2) * SIZE
    try:
        shown: dict[str, Any] = dict(background='white', width=side, height=side)
        # Without a number of dots, sizes in millimetres and points are none.
        png = resvg_py.svg_to_bytes(svg_string=OUTSIDE.sub(' ', svg), **shown, dpi=96.0, skip_system_fonts=True)
    except (ValueError, OverflowError) as error:
        raise UserError(f'{type(error).__name__}: {error}') from error
    drawn = PIL.Image.open(io.BytesIO(bytes(png))).convert('RGB')  # It keeps the proportions.
    image = PIL.Image.new('RGB', (side, side), 'white')
    image.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    if on_page:
        image = _cut_out(image)
    image = image.resize((SIZE, SIZE), PIL.Image.Resampling.LANCZOS)
    extrema: Any = image.getextrema()  # A pair for each channel of an RGB.
    if max(high - low for low, high in extrema) < 16:
        raise UserError('nothing is to be seen')
    made = io.BytesIO()
    image.save(made, 'WEBP', quality=90, method=4)
    return made.getvalue()


def _cut_out(image: PIL.Image.Image) -> PIL.Image.Image:
    """The smallest square around what is not white, with a margin."""
    white = PIL.Image.new('RGB', image.size, 'white')
    box = PIL.ImageChops.difference(image, white).getbbox()
    if box is None:
        return image
    width, height = box[2] - box[0], box[3] - box[1]
    side = max(width, height) * 17 // 16 + 1
    square = PIL.Image.new('RGB', (side, side), 'white')
    square.paste(image.crop(box), ((side - width) // 2, (side - height) // 2))
    return square
