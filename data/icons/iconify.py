"""Icon sets of Iconify, a JSON file each: one drawing of each thing that has a name.

A set is an artist's, and its name is the style of its images. Of the variants of a thing in a set ('bell',
'bell-outline', 'bell-16'), the one with the shortest name is taken.
"""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from data.svg import Things, document, draw
from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped

# Words that name a variant, not a thing.
VARIANTS = frozenset(
    'outline outlined filled fill solid bold light thin duotone duo line linear broken regular sharp round rounded '
    'twotone alt flat color colour stroke negative colored two tone o ios md fa circle square rectangle oval'.split()
)
SIZES = re.compile(r'\d+(px)?')
NO_THINGS = ('Logos', 'Flags / Maps', 'Programming')  # Categories of sets.
# These artists are in the picture dictionary.
IN_DICTIONARY = ('noto', 'noto-v1', 'twemoji', 'openmoji', 'fluent-emoji', 'fluent-emoji-flat')
IN_DICTIONARY += ('fluent-emoji-high-contrast',)
SVG = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def read(path: str, name: str, images: Any, things: Things) -> Iterator[Document | Dropped]:
    """The drawings of a set whose names are in `things`, and what was dropped."""
    try:
        icons = json.loads(pathlib.Path(path).read_bytes())
        prefix, info, found = icons['prefix'], icons['info'], icons['icons']
        licence, category, author = info['license'].get('spdx', ''), info.get('category', ''), info['author']['name']
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield Dropped('json_damaged', 'file', name, excerpt=f'{type(error).__name__}: {error}')
        return
    rule = (
        'set_not_for_commerce'
        if '-NC' in licence or not licence
        else 'set_of_no_things'
        if category in NO_THINGS
        else 'set_in_dictionary'
        if prefix in IN_DICTIONARY
        else ''
    )
    if rule:
        yield Dropped(rule, 'file', name, excerpt=f'{info.get("name")}, {licence}, {category}', value=len(found))
        return
    about = dict(style=prefix, artist=author, licence=licence, source=f'npm @iconify/json, {prefix}')
    best: dict[str, tuple[int, int, str, str]] = {}
    for icon in found:
        words = icon.lower().split('-')
        kept = [word for word in words if word not in VARIANTS and not SIZES.fullmatch(word)]
        phrase = ' '.join(kept)
        if phrase not in things or found[icon].get('hidden'):
            yield Dropped('name_of_no_thing', 'image', name, excerpt=icon)
            continue
        concept, rank = things[phrase].concept, (len(words) - len(kept), len(icon), icon, phrase)
        if concept in best:
            yield Dropped('variant', 'image', name, excerpt=max(best[concept], rank)[2])
        best[concept] = min(best.get(concept, rank), rank)
    for _, _, icon, phrase in sorted(best.values()):
        try:
            image = draw(svg(found[icon], icons))
        except (ValueError, KeyError, TypeError) as error:
            yield Dropped('image_damaged', 'image', name, excerpt=f'{icon}: {error}')
            continue
        yield document(f'{prefix}/{icon}', image, things[phrase], about)


def svg(icon: dict[str, Any], icons: dict[str, Any]) -> str:
    """An icon of a set in Iconify's JSON format."""
    defaults = dict(left=0, top=0, width=16, height=16)
    box = [float(icon.get(key, icons.get(key, default))) for key, default in defaults.items()]
    return f'<svg {SVG} viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>'
