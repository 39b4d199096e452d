"""Icons by many artists, from Iconify's collection of icon sets: one thing drawn in 25 ways.

An icon has an English name and nothing else: `fire-truck`, `cat-outline`, `apple-24-filled`. Without the words that
name a variant, it must be the name of an emoji or a stamp, or a noun of WordNet whose most frequent sense is a thing
that one can see: an animal, a plant, food, an artifact, a part of a body, or a thing in nature. So icons of actions
(`align left`), brands and signs are left out. The name decides the concept: an emoji or a stamp of that name or of a
synonym, else a concept of its own, such as `icon:stapler`.

A set is one artist, and one style. Names can mislead (`mouse` may be the animal or the device, in different sets).
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from data.dictionary_text.lexicon import first_senses
from data.picture_dictionary import emoji
from data.picture_dictionary.stamps import Families

VERSION = '2.2.535'
ROOT = f'n/iconify-json-{VERSION}/package/json'
WORDNET = 'x/wordnet-base/usr/share/wordnet'

# In colour, then in one colour. Left out: sets of logos and flags, sets whose licence forbids commercial use or is GPL,
# and `fluent-emoji`, whose drawings are those of fluent-3d and fluent-flat.
SETS = (
    *('emojione', 'fxemoji', 'streamline-emojis', 'noto-v1', 'icon-park', 'glyphs-poly', 'flat-color-icons'),
    *('streamline-color', 'streamline-cyber-color', 'streamline-plump-color', 'streamline-kameleon-color'),
    *('streamline-ultimate-color', 'marketeq'),
    *('game-icons', 'iconmind', 'hugeicons', 'mdi', 'whh', 'tabler', 'mingcute', 'picon', 'boxicons', 'fa7-solid'),
    *('material-symbols', 'lucide', 'ph', 'ri', 'healthicons', 'solar', 'carbon', 'si-glyph'),
)
# Words at the end of an icon's name that tell how it is drawn, and not what it shows.
VARIANTS = frozenset(
    'alt bold broken color duotone fill filled flat icon light line linear off outline outlined regular remix round'
    ' rounded sharp sign solid thin twotone variant'.split()
)
# WordNet's lexicographer files of things (`man 5 lexnames`), and the category of emoji for such things.
FILES = {5: 'animal', 6: 'artifact', 8: 'body', 13: 'food', 17: 'object', 19: 'phenomenon', 20: 'plant'}
CATEGORIES = {
    'animal': 'Animals & Nature',
    'plant': 'Animals & Nature',
    'food': 'Food & Drink',
    'artifact': 'Objects',
    'body': 'Objects',
    'object': 'Travel & Places',
    'phenomenon': 'Travel & Places',
}


@dataclasses.dataclass(frozen=True)
class Icon:
    """One icon: `style` is its set, `key` its name there, `english` what it shows, `kind` a key of CATEGORIES."""

    style: str
    key: str
    english: str
    concept: str
    family: str
    kind: str
    licence: str
    icons: dict = dataclasses.field(repr=False)  # The whole set, as Iconify stores it.

    def image(self) -> Image.Image | None:
        """The icon as RGBA, 256 px wide; None if nothing is to be seen."""
        image = emoji.draw_icon(self.icons, self.key)
        return image if image.getchannel('A').getextrema()[1] else None


def thing(key: str) -> str:
    """'cat-outline' -> 'cat': an icon's name without the words for its variant."""
    words = re.split('[-_ ]', key)
    while len(words) > 1 and (words[-1] in VARIANTS or words[-1].isdigit()):
        words.pop()
    return ' '.join(words)


def read_icons(raw: Path, families: Families) -> Iterator[Icon]:
    """Every icon of a thing, at most one per thing and set, in the order of SETS and of names.

    Of the variants of an icon, the one with the shortest name is taken. `families` learns the new concepts.
    """
    known = {noun: sense for noun, sense in first_senses(raw / WORDNET).items() if sense.file in FILES}
    for style in SETS:
        icons = emoji.read_json(raw / ROOT / f'{style}.json')
        keys = {}
        for key in sorted(icons['icons'], key=lambda key: (len(key), key)):
            if not icons['icons'][key].get('hidden'):
                keys.setdefault(thing(key), key)
        for name, key in sorted(keys.items()):
            meant = known.get(name)
            if meant is None and families.named(name) is None:
                continue
            english = next((noun for noun in (name, *(meant.nouns if meant else ())) if families.named(noun)), name)
            yield Icon(
                style=style,
                key=key,
                english=english,
                concept=families.named(english, f'icon:{english}'),
                family=families.of_english(english),
                kind=FILES[meant.file] if meant else 'artifact',
                licence=icons['info']['license']['spdx'],
                icons=icons,
            )
