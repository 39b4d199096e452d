"""Battle for Wesnoth: portraits of its units with their descriptions, and its illustrated stories, in many languages.

The game's files are in WML, its Markup Language: tags, and attributes whose texts to translate are marked by `_`. The
translations are gettext catalogues, one for each text domain and language. Macros are not expanded: what a macro would
give is missing.
"""

import dataclasses
import functools
import gettext
import glob
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.building.readers.media_files import image_rule

# A comment, a tag, or an attribute: quoted texts, of which there may be several with a `+` between, or a line's rest.
TOKEN = re.compile(
    r"""\#[^\n]*
    | \[(?P<closes>/?)\+?(?P<tag>\w+)\]
    | (?P<key>\w+)[ \t]*=[ \t]*(?P<value>(?:_?\s*"(?:[^"]|"")*"(?:\s*\+\s*(?=_|"))?)+|[^\n\#]*)
    """,
    re.VERBOSE,
)
TEXT = re.compile(r'(?P<translated>_?)\s*"(?P<text>(?:[^"]|"")*)"')
DOMAIN = re.compile(r'^#textdomain\s+(\S+)', re.MULTILINE)
MARKUP = re.compile(r'</?\w+[^<>]*>')
ABOUT = dict(licence='GPL-2.0-or-later; newer art CC-BY-SA-4.0', source='Battle for Wesnoth 1.18')

ENGLISH = 'en'

Translate = Callable[[str], str]
Spoken = Mapping[str, Translate]  # By language.
Folders = Sequence[ImageFolder]


@dataclasses.dataclass
class Element:
    """A tag: its attributes, as they are written, and the tags within it."""

    tag: str
    attributes: dict[str, str] = dataclasses.field(default_factory=dict)
    within: list['Element'] = dataclasses.field(default_factory=list)

    def every(self, tag: str) -> Iterator['Element']:
        """The elements of this tag at any depth, in reading order."""
        for one in self.within:
            if one.tag == tag:
                yield one
            yield from one.every(tag)


def parse(text: str) -> Element:
    """The elements of a WML file. A tag that is not closed ends with the file."""
    root = Element('')
    opened = [root]
    for found in TOKEN.finditer(text):
        if found['key']:
            opened[-1].attributes.setdefault(found['key'], found['value'].strip())
        elif found['tag'] and not found['closes']:
            opened[-1].within.append(Element(found['tag']))
            opened.append(opened[-1].within[-1])
        elif found['tag'] and any(one.tag == found['tag'] for one in opened[1:]):
            while opened.pop().tag != found['tag']:
                pass
    return root


def read(
    path: str, name: str, image_folder: ImageFolder, locale: str, split_of: Callable[[str], str]
) -> Iterator[Document | Dropped]:
    """The units and stories of a `.cfg` file, a document in English and one in each language that has its texts.

    A unit's document is its portrait and `NAME: DESCRIPTION`; a woman with a portrait of her own has another. A story's
    has its images, each before its text. `meta` has the language, the unit's race, and the split of the portrait.

    Args:
      image_folder: unused. The game's files name images such as portraits/humans/mage.webp, which lie in the folder
        `images` of a folder above the file.
      locale: the folder of translations, LANGUAGE/LC_MESSAGES/DOMAIN.mo. It may have the sign *.
      split_of: the split of a portrait or a story, by its name.
    """
    text = pathlib.Path(path).read_text('utf-8', 'replace')
    domain = DOMAIN.search(text)
    spoken = _translations(locale, domain[1] if domain else '')
    root = parse(text)
    above = (folder / 'images' for folder in pathlib.Path(path).parents)
    folders = [ImageFolder(str(folder)) for folder in above if folder.is_dir()]
    for unit in root.every('unit_type'):
        for form in (unit, *(one for one in unit.within if one.tag == 'female' and 'profile' in one.attributes)):
            yield from _unit(form, unit, name, folders, spoken, split_of)
    for number, story in enumerate(root.every('story')):
        yield from _story(story, f'{name}#{number}', folders, spoken, split_of)


def words(value: str, translate: Translate) -> str:
    """The text of an attribute in a language; '' if a part of it has none. '' without quoted text."""
    said = []
    for part in TEXT.finditer(value):
        text = part['text'].replace('""', '"')
        if part['translated'] and text:
            text = translate(text)
            if not text:
                return ''
        said.append(text)
    return ' '.join(MARKUP.sub('', ''.join(said)).split())


def _unit(form: Element, unit: Element, file: str, folders: Folders, spoken: Spoken, split_of) -> Iterator:
    said = unit.attributes | form.attributes  # What a woman has not of her own, she shares with the man.
    where = f'{file}#{said.get("id", "")}{"" if form is unit else "+female"}'
    portrait = _image(said.get('profile', ''))
    data = _read(portrait, folders)
    rule = 'image_missing' if data is None else image_rule(data)
    if rule:
        yield Dropped(rule, 'image', where, excerpt=portrait)
        return
    # A man and a woman of a unit are drawn alike.
    about = dict(ABOUT, race=said.get('race', ''), split=split_of(re.split(r'[.+]', portrait)[0]))
    for language, translate in spoken.items():
        name, description = (words(said.get(key, ''), translate) for key in ('name', 'description'))
        draft = Draft(f'{where}:{language}', language=language, **about)
        if name and description:
            draft.add(data)
            draft.text(f'{name}: {description}')
            yield from draft.finish()
        elif language == ENGLISH:
            yield from draft.give_up('document_without_text', portrait)


def _story(story: Element, where: str, folders: Folders, spoken: Spoken, split_of) -> Iterator:
    parts = [
        (_image(part.attributes.get('background', '')), part.attributes.get('story', ''))
        for part in story.every('part')
    ]
    if not any(background for background, _ in parts):
        yield Dropped('document_without_image', 'document', where)
        return
    about = dict(ABOUT, split=split_of(where.partition('#')[0]))
    for language, translate in spoken.items():
        told = [words(text, translate) for _, text in parts]
        if language != ENGLISH and not all(told):
            continue
        draft, shown = Draft(f'{where}:{language}', language=language, **about), ''
        for (background, _), text in zip(parts, told, strict=True):
            if background and background != shown:
                draft.image(_read(background, folders), background)
            shown = background
            draft.text(text, after_text='\n')
        yield from draft.finish()


def _image(value: str) -> str:
    """The path of an image. What follows ~ says how the game cuts it."""
    return value.strip('"').partition('~')[0]


def _read(image: str, folders: Folders) -> bytes | None:
    return next((data for folder in folders if (data := folder.read(image)) is not None), None)


@functools.lru_cache(maxsize=8)
def _translations(locale: str, domain: str) -> dict[str, Translate]:
    """By language, the translation of a text, or ''. A language with @ is one of the others in another script."""
    found = {ENGLISH: lambda text: text.rpartition('^')[2]}  # Before ^ stands what tells two equal texts apart.
    for path in sorted(glob.glob(f'{locale}/*/LC_MESSAGES/{domain}.mo')):
        language = pathlib.Path(path).parts[-3]
        if '@' in language:
            continue
        try:
            with open(path, 'rb') as file:
                catalogue = gettext.GNUTranslations(file)
        except (ValueError, OSError):  # Its header was never filled in, or it is damaged.
            continue
        found[language.replace('_', '-')] = functools.partial(_translated, catalogue)
    return found


def _translated(catalogue: gettext.GNUTranslations, text: str) -> str:
    said = catalogue.gettext(text)
    return '' if said == text else said
