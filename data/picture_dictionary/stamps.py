"""Tux Paint stamps, photographs and drawings with captions; and families of words, so that splits do not leak.

A stamp is a PNG (one object, its background removed) with a text file: line 1 the English caption, then
`LL.utf8=caption`. The English caption tells what a stamp shows. In "A red fire truck." the noun phrase 'red fire
truck' is the concept, that of an emoji if one has this English name. The head noun 'truck' gives the family.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from data.picture_dictionary import emoji

ROOT = 'x/tuxpaint-stamps-default/usr/share/tuxpaint/stamps'
# Letters, digits, coins and signs are not things with a name. (Mirrored twins are skipped, since they have no caption.)
LEFT_OUT = 'symbols'
LOCALE = {'zh': 'zh_CN'}

# A Tux Paint folder -> the category of emoji for such things. The subcategory is 'tux-' and the folder's name.
CATEGORIES = {
    'animals': 'Animals & Nature',
    'plants': 'Animals & Nature',
    'food': 'Food & Drink',
    'town': 'Travel & Places',
    'vehicles': 'Travel & Places',
    'space': 'Travel & Places',
    'naturalforces': 'Travel & Places',
    'hobbies': 'Activities',
    'sports': 'Activities',
    'seasonal': 'Activities',
    'people': 'People & Body',
    'clothes': 'Objects',
    'household': 'Objects',
    'medical': 'Objects',
    'military': 'Objects',
}

# A stamp with more `texture` is a photograph. The value is near the minimum between the two modes of the 702 values. A
# few stamps are misclassified (shaded drawings; photographs of black, white or smooth things).
PHOTO_TEXTURE = 0.5

_CUT = re.compile(
    r'[,.;:!?()–—]| (?:in|of|with|on|for|at|from|and|by|to|that|which|is|or|under|over|near|without'
    r'|used|covered|dancing|inside|means|slice) '
)
_ARTICLE = re.compile(r'^(?:an?|the|some|two|three|four|several|(?:a )?(?:pair|bunch|piece|slice) of) ')


def noun_phrase(english: str) -> str:
    """'A red fire truck with a ladder.' -> 'red fire truck': lower case, no article, nothing after the noun."""
    return _CUT.split(_without_article(english) + ' ')[0].strip()


def _without_article(english: str) -> str:
    phrase = re.sub('["“”]', '', english).strip().lower()
    while (shorter := _ARTICLE.sub('', phrase)) != phrase:
        phrase = shorter
    return phrase


def singular(word: str) -> str:
    """A rough singular, which maps 'cherries' to 'cherry' and 'socks' to 'sock'. It is never shown."""
    if word.endswith('ies'):
        return word[:-3] + 'y'
    return word[:-1] if word.endswith('s') and not word.endswith('ss') else word


class Families:
    """Families of concepts, each in one split: those whose English names share the head noun; an animal and its face.

    `names` maps the ids of the emoji concepts to their English names. The name of a family is the id of an emoji
    concept: that of the head noun alone ('1f415', dog, for 'dog face', 'guide dog' and 'hot dog'), else of its first
    member. A family of stamps alone has the noun as its name. Synonyms ('car', 'automobile') are not recognised.
    """

    def __init__(self, names: dict[str, str]):
        self._heads_of = {code: self._head(noun_phrase(name)) for code, name in names.items()}
        self._codes, self._families = {}, {}
        for code in sorted(names):
            # The whole name, not its noun phrase: 'fork and knife' is not a fork.
            self._codes.setdefault(self._key(_without_article(names[code])), code)
            self._families.setdefault(self._heads_of[code], code)
        for phrase, code in self._codes.items():
            if phrase in self._families:
                self._families[phrase] = code

    @staticmethod
    def _key(phrase: str) -> str:
        words = phrase.split()
        return ' '.join(words[:-1] + [singular(word) for word in words[-1:]])

    @staticmethod
    def _head(phrase: str) -> str:
        words = phrase.removesuffix(' face').split()
        return singular(words[-1]) if words else phrase

    def concept(self, english: str) -> str | None:
        """The id of the concept that this caption shows, ignoring articles and plurals."""
        return self._codes.get(self._key(noun_phrase(english)))

    def named(self, name: str, otherwise: str | None = None) -> str | None:
        """The id of the concept with exactly this English name; without one, `otherwise`, and from then on it is."""
        key = self._key(_without_article(name))
        if otherwise is not None:
            self._codes.setdefault(key, otherwise)
        return self._codes.get(key)

    def of_english(self, english: str) -> str:
        head = self._head(noun_phrase(english))
        return self._families.get(head, head) or english

    def of_code(self, code: str) -> str:
        return self._families[self._heads_of[code]]


@dataclasses.dataclass(frozen=True)
class Stamp:
    """One stamp. `stem` is its path without '.png' ('animals/mammals/cats/tiger'); `captions` may lack languages."""

    path: Path
    stem: str
    concept: str
    family: str
    style: str
    category: str
    subcategory: str
    captions: dict[str, str]

    def image(self) -> Image.Image:
        return Image.open(self.path).convert('RGBA')


def read_stamps(raw: Path, families: Families) -> Iterator[Stamp]:
    """Every stamp with captions outside `symbols`, in the order of the paths."""
    root = raw / ROOT
    tux_concepts = {}
    for path in sorted(root.rglob('*.png')):
        stem = path.relative_to(root).with_suffix('').as_posix()
        text = path.with_suffix('.txt')
        folder, *middle, _ = stem.split('/')
        if folder == LEFT_OUT or not text.exists():
            continue
        captions = read_captions(text.read_text(encoding='utf-8'))
        english = captions['en']
        # Two stamps of one thing are one concept, with the id of the first.
        concept = families.concept(english) or tux_concepts.setdefault(noun_phrase(english), f'tux:{stem}')
        with Image.open(path) as image:
            style = 'tux-photo' if is_photo(image.convert('RGBA')) else 'tux-drawing'
        subcategory = 'tux-' + (middle[-1] if middle else folder)
        family = families.of_english(english)
        yield Stamp(path, stem, concept, family, style, CATEGORIES[folder], subcategory, captions)


def read_captions(text: str) -> dict[str, str]:
    """Language -> caption without its final mark, for 'en' (line 1) and the other LANGUAGES in the file."""
    first, *lines = text.splitlines()
    by_locale = dict(line.split('.utf8=', 1) for line in lines if '.utf8=' in line)
    captions = {'en': first} | {
        language: by_locale[LOCALE.get(language, language)]
        for language in emoji.LANGUAGES
        if LOCALE.get(language, language) in by_locale
    }
    stripped = {language: re.sub(r'\s*[.。|।]\s*$', '', caption).strip() for language, caption in captions.items()}
    return {language: caption for language, caption in stripped.items() if caption}


def texture(image: Image.Image) -> float:
    """Share of the object's horizontal neighbours whose brightness differs a little (by 1 to 24 of 255).

    A drawing has flat areas and hard edges, where neighbours are equal or very different; a photograph has grain.
    """
    pixels = np.asarray(image.convert('RGBA'), np.int32)
    solid = pixels[..., 3] > 250
    grey = pixels[..., :3].sum(-1)
    step = np.abs(np.diff(grey, axis=1))[solid[:, 1:] & solid[:, :-1]]
    return float(((step >= 3) & (step <= 72)).mean()) if step.size else 0.0


def is_photo(image: Image.Image) -> bool:
    return texture(image) > PHOTO_TEXTURE
