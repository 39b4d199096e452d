"""The emoji of the picture dictionary: their names in 36 languages, and their drawings.

A concept is one emoji of the five categories that show things (faces, people, flags and symbols are left out). Several
artists drew each of them, and Unicode's CLDR names it in every language: one meaning, many images, many names. The
packages spell code points in different ways (case, with or without the invisible variation selector FE0F), so that
`plain` gives the common key. A raw folder is what `fetch.sh` leaves: `n/NAME-VERSION/package/...`.
"""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from data.icons.iconify import svg
from flamingo_jax.errors import UserError

CATEGORIES = ('Animals & Nature', 'Food & Drink', 'Travel & Places', 'Activities', 'Objects')

# The languages in which both CLDR and the Tux Paint stamps name at least 95 % of the concepts. CLDR calls Bokmål `no`.
LANGUAGES = (
    *('am', 'bg', 'ca', 'cs', 'de', 'el', 'en', 'es', 'eu', 'fi', 'fr', 'ga', 'gd', 'gl', 'gu', 'hr', 'hu', 'hy'),
    *('id', 'is', 'it', 'ja', 'ka', 'ko', 'lv', 'nb', 'nl', 'pl', 'pt', 'ru', 'sk', 'sl', 'sq', 'sv', 'uk', 'zh'),
)
CLDR_LOCALE = {'nb': 'no'}

TABLE = 'n/emoji-datasource-16.0.0/package/emoji.json'
GOOGLE = 'n/emoji-datasource-google-16.0.0/package/img/google/64'
TWITTER = 'n/emoji-datasource-twitter-16.0.0/package/img/twitter/64'
OPENMOJI = 'n/openmoji-17.0.0/package'
FLUENT_3D = 'n/lobehub-fluent-emoji-3d-1.1.0/package/assets'
FLUENT_FLAT = 'n/iconify-json-fluent-emoji-flat-1.2.6/package'
NOTO_V1 = 'n/iconify-json-noto-v1-1.2.5/package'
FLUENT_ANIM = [f'n/lobehub-fluent-emoji-anim-{part}-1.0.0/package/assets' for part in (1, 2, 3, 4)]
CLDR = 'n/cldr-annotations-full-48.2.0/package/annotations'
CLDR_DERIVED = 'n/cldr-annotations-derived-full-48.2.0/package/annotationsDerived'


@dataclasses.dataclass(frozen=True)
class Concept:
    """One emoji: `code` is its id ('1f436', parts joined by '-'), `names` has one name per language of LANGUAGES."""

    code: str
    category: str
    subcategory: str
    image: str  # its file name in the emoji-datasource packages
    names: dict[str, str]


def plain(code: str) -> str:
    """A code point sequence in the common spelling: lower case, no FE0F."""
    return '-'.join(part for part in code.lower().split('-') if part != 'fe0f')


def read_json(path: Path):
    return json.loads(path.read_text(encoding='utf-8'))


def read_concepts(raw: Path) -> list[Concept]:
    """All concepts of CATEGORIES with a name in every language of LANGUAGES, in the order of code points."""
    by_language = {language: _names(raw, CLDR_LOCALE.get(language, language)) for language in LANGUAGES}
    concepts = []
    for row in read_json(raw / TABLE):
        if row['category'] not in CATEGORIES:
            continue
        text = ''.join(chr(int(part, 16)) for part in plain(row['unified']).split('-'))
        names = {language: names[text] for language, names in by_language.items() if text in names}
        if len(names) == len(LANGUAGES):
            concepts.append(Concept(row['unified'].lower(), row['category'], row['subcategory'], row['image'], names))
    return sorted(concepts, key=lambda concept: concept.code)


def _names(raw: Path, locale: str) -> dict[str, str]:
    """Emoji (without FE0F) -> its CLDR short name. Emoji that are sequences are in the derived annotations."""
    names = {}
    for root, key in ((CLDR, 'annotations'), (CLDR_DERIVED, 'annotationsDerived')):
        path = raw / root / locale / 'annotations.json'
        if path.exists():
            entries = read_json(path)[key]['annotations']
            names |= {text.replace('\ufe0f', ''): entry['tts'][0] for text, entry in entries.items() if 'tts' in entry}
    return names


def drawer(raw: Path, style: str) -> Callable[[Concept], Image.Image | None]:
    """A function that gives a concept's image in a style as RGBA, or None if there is none.

    The image has the package's own size; vector drawings are rendered at 256 px. A clip ('fluent-anim') is the
    opened animation, or None if it has only one frame. ValueError if the style is not a style of emoji.
    """
    if style == 'noto':
        return lambda concept: _open(raw / GOOGLE / concept.image)
    if style == 'twemoji':
        return lambda concept: _open(raw / TWITTER / concept.image)
    if style in ('openmoji-color', 'openmoji-black'):
        files = _by_code(raw / OPENMOJI / style.removeprefix('openmoji-') / 'svg')
        return lambda concept: _render(files[plain(concept.code)].read_text()) if plain(concept.code) in files else None
    if style == 'fluent-3d':
        files = _by_code(raw / FLUENT_3D)
        return lambda concept: _open(files.get(plain(concept.code)))
    if style == 'fluent-flat':
        return _icon_drawer(raw, FLUENT_FLAT)
    if style == 'noto-v1':
        # This package has only names, no code points. The Fluent package has both, with the same rule for names.
        return _icon_drawer(raw, NOTO_V1)
    if style == 'fluent-anim':
        files = {}
        for folder in FLUENT_ANIM:
            files |= _by_code(raw / folder)
        return lambda concept: _open_clip(files.get(plain(concept.code)))
    raise UserError(f'{style!r} is not a style of emoji.')


def _by_code(folder: Path) -> dict[str, Path]:
    return {plain(path.stem): path for path in sorted(folder.iterdir()) if path.suffix in ('.svg', '.webp')}


def _icon_drawer(raw: Path, package: str) -> Callable[[Concept], Image.Image | None]:
    icons = read_json(raw / package / 'icons.json')
    name_of = {plain(code): name for code, name in read_json(raw / FLUENT_FLAT / 'chars.json').items()}

    def draw(concept):
        name = name_of.get(plain(concept.code))
        name = icons.get('aliases', {}).get(name, {}).get('parent', name)
        if name not in icons['icons']:
            return None
        return draw_icon(icons, name)

    return draw


def draw_icon(icons: dict, name: str) -> Image.Image:
    """An icon of a set in Iconify's JSON format, as RGBA, 256 px."""
    return _render(svg(icons['icons'][name], icons))


def _render(drawing: str) -> Image.Image:
    import cairosvg  # Imported here, since only vector drawings need it and its libcairo.

    png = cairosvg.svg2png(drawing.encode(), output_width=256, output_height=256)
    return Image.open(io.BytesIO(png)).convert('RGBA')


def _open(path: Path | None) -> Image.Image | None:
    return Image.open(path).convert('RGBA') if path is not None and path.exists() else None


def _open_clip(path: Path | None) -> Image.Image | None:
    if path is None:
        return None
    clip = Image.open(path)
    return clip if getattr(clip, 'n_frames', 1) > 1 else None
