"""Drawings as SVG with names or titles: what is common to `icons.py` and `clip_art.py`.

A drawing is kept if a phrase that is said of it names a thing. Which phrases do is a table that a build makes once
(`data/drawings.py`) and gives to all workers.
"""

import io
import json
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import PIL.Image

from flamingo_jax.building.document import Document

SIZE = 128  # Pixels, as in the picture dictionary.


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


def document(id: str, picture: bytes, thing: Thing, about: Mapping[str, Any], sentence: str = '') -> Document:
    """A picture and a text: the sentence that was said of it; without one, the thing's name, or its definition too.

    about: the style, the artist, the licence and the source.
    """
    name = f'{thing.name[0].upper()}{thing.name[1:]}'
    if not sentence:
        defined = thing.definition and zlib.crc32(id.encode()) % 2
        sentence = f'{name}: {thing.definition}.' if defined else f'{name}.'
    known = thing._asdict()
    meta = dict(about) | {key: known[key] for key in known if key not in ('name', 'definition')} | dict(name=thing.name)
    meta |= dict(language='en')
    return Document(id, ['', sentence], [picture, b''], [0.0, 1.0], meta=json.dumps(meta, ensure_ascii=False))


def draw(svg: str) -> bytes:
    """A WebP of SIZE pixels, in the middle of a white square.

    Raises:
      ValueError: it cannot be drawn, or nothing is to be seen.
    """
    import cairosvg  # Only drawings need it, and its libcairo.

    try:
        # By default it reads nothing outside of the file, and expands no entities.
        size = dict(output_width=2 * SIZE, output_height=2 * SIZE)
        png = cairosvg.svg2png(svg.encode(), background_color='white', **size)
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # Of the parser, of cairo, and of arithmetic.
        raise ValueError(f'{type(error).__name__}: {error}') from error
    picture = PIL.Image.open(io.BytesIO(png)).convert('RGB').resize((SIZE, SIZE), PIL.Image.Resampling.LANCZOS)
    if max(high - low for low, high in picture.getextrema()) < 16:
        raise ValueError('nothing is to be seen')
    made = io.BytesIO()
    picture.save(made, 'WEBP', quality=90, method=4)
    return made.getvalue()
