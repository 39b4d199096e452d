"""Drawings as SVG with names or titles, as documents in the splits of their things: what `icons` and `clip_art` share.

A drawing is kept if a phrase that is said of it names a thing. Which phrases do is a table that a build makes once
(`things_of`) and gives to all workers.

Things are those of the picture dictionary, and what WordNet calls an animal, a plant, a food, an artefact, a natural
object or a part of a body, in the first sense of the word. A thing of the dictionary keeps its concept, its names in
36 languages and its split. So one concept is drawn by many artists, and no split leaks: other things are in the split
of the dictionary's words with the same head noun.
"""

import io
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image
import PIL.ImageChops

from data.dictionary_text.lexicon import first_senses, is_coarse, wordnet_of
from data.picture_dictionary import stamps
from data.picture_dictionary.picture_dictionary_dataset_builder import names_of, split_of
from flamingo_jax.building.document import Document
from flamingo_jax.building.readers.builder import PublishedBuilder
from flamingo_jax.building.runner import beam
from flamingo_jax.building.write import Sources
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.sources.array_record import open_split

SIZE = 128  # Pixels, as in the picture dictionary.
# An image or a style that is not in the file itself: nothing else is read.
OUTSIDE = re.compile(r"""(?:xlink:)?href\s*=\s*("\s*(?!#|data:|\s)[^"]*"|'\s*(?!#|data:|\s)[^']*')""", re.IGNORECASE)
SPLITS = ('train', 'validation', 'test')
# WordNet's files of nouns (man 5 lexnames) -> category and subcategory, as in the picture dictionary.
KINDS = {
    5: ('Animals & Nature', 'animal-wordnet'),
    6: ('Objects', 'artifact-wordnet'),
    8: ('People & Body', 'body-parts-wordnet'),
    13: ('Food & Drink', 'food-wordnet'),
    17: ('Travel & Places', 'object-wordnet'),
    20: ('Animals & Nature', 'plant-wordnet'),
}
# What an icon of this name shows is most often not what the word means first, or nothing that can be seen.
AMBIGUOUS = frozenset(
    'mouse bug python bat crane seal match apple android chip monitor tablet wash empty system import segment archive '
    'exit recording portfolio set cap pad can run track counter driver key body face delicious architecture'.split()
)


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


def things_of(wordnet: Path, dictionary: Path) -> dict[str, Thing]:
    """Every phrase that names a thing.

    Args:
      wordnet: the folder that data/dictionary_text/fetch.sh filled.
      dictionary: the prepared picture dictionary.
    """
    known: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        for record in open_split(str(dictionary), split):
            fields = {key: record[key].decode() for key in ('concept', 'category', 'subcategory')}
            held = tuple(map(bytes.decode, record['heldout_languages']))
            fields |= dict(split=split, names=names_of(record), heldout_languages=held)
            known.setdefault(fields['concept'], fields)
    families = stamps.Families({concept: fields['names']['en'] for concept, fields in sorted(known.items())})
    things = {}
    for phrase, sense in first_senses(wordnet_of(wordnet)).items():
        if phrase in AMBIGUOUS:
            continue
        definition = '' if is_coarse(sense.definition) else sense.definition
        # 'House of lords' is no house.
        concept = families.concept(phrase) if stamps.noun_phrase(phrase) == phrase else None
        if concept is not None:
            fields = known[concept] | dict(name=families_name(known[concept]), definition=definition)
        elif sense.file in KINDS:
            family = families.of_english(phrase)
            split = known[family]['split'] if family in known else split_of(family)
            category, subcategory = KINDS[sense.file]
            fields = dict(concept=f'word:{phrase}', name=phrase, split=split, category=category, definition=definition)
            fields |= dict(subcategory=subcategory, names=dict(en=phrase), heldout_languages=())
        else:
            continue
        things[phrase] = Thing(**fields)
    return things


def families_name(fields: dict[str, Any]) -> str:
    """The English name of a thing of the dictionary; stamps have sentences, of which it is the noun."""
    return stamps.noun_phrase(fields['names']['en'])


def english_words(wordnet: Path) -> frozenset[str]:
    """Every word of WordNet, and the small ones that it lacks."""
    words = set("the of and or with in on to from for by at an as is are its it's this that my your his her".split())
    for part in ('noun', 'verb', 'adj', 'adv'):
        for line in (wordnet_of(wordnet) / f'index.{part}').read_text('utf-8').splitlines():
            if not line.startswith(' '):
                words.update(line.split(' ', 1)[0].split('_'))
    return frozenset(words | {f'{word}s' for word in words})


class Drawings(PublishedBuilder, skip_registration=True):
    """Documents of drawings, in the splits of their things."""

    def sources(self, pipeline: beam.Pipeline, work: str) -> Sources:
        """The documents of all files."""
        made = super().sources(pipeline, work)
        kept = made.documents['train']
        return Sources(
            {split: kept | f'{split} only' >> beam.Filter(in_split, split) for split in SPLITS}, made.dropped
        )


def in_split(document: Any, split: str) -> bool:
    """Whether a document is in a split."""
    return json.loads(document.meta)['split'] == split
