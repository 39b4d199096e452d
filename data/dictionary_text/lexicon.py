"""The content of the documents: names and keywords of emoji concepts, their kinds, and the glosses of WordNet.

All sources have permissive licences, since a language model trained on the documents is to be published:
Unicode CLDR annotations (Unicode-3.0), the categories of emoji-datasource (MIT) and WordNet 3.0 (WordNet licence).
"""

import collections
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Names longer than this are descriptions ('kiss: woman, man, medium skin tone'), not names.
LONGEST_NAME = 24
LONGEST_DEFINITION = 120
# WordNet marks offensive words in their definitions. A published model need not learn them.
COARSE = ('slur', 'offensive', 'obscene', 'vulgar', 'disparaging', 'derogatory', 'sexual', 'prostitut')
# A keyword that more concepts share ('face', 'animal') tells the kind of a thing, not the thing.
CONCEPTS_PER_KEYWORD = 2
# A flag's name is that of a country; a component (skin tone, hair) is not a thing.
UNUSED_CATEGORIES = ('Flags', 'Component')
NO_THINGS = ('Symbols', 'People & Body', 'Smileys & Emotion')

# The English word for a concept's kind, by the beginning of its subcategory. Kinds that overlap or are not kinds of
# things are left out. Unicode's groups are not exact: a bus stop is a vehicle.
KINDS = {
    'animal': 'animal',
    'plant': 'plant',
    'food': 'food',
    'drink': 'drink',
    'transport-ground': 'vehicle',
    'transport-water': 'vehicle',
    'transport-air': 'vehicle',
    'place-building': 'building',
    'place-religious': 'building',
    'clothing': 'garment',
    'tool': 'tool',
    'musical-instrument': 'instrument',
    'person': 'person',
    'body-parts': 'body part',
    'face': 'face',
    'sport': 'sport',
    'heart': 'heart',
}
FEWEST_MEMBERS = 6  # of a subcategory that stands for a class


@dataclasses.dataclass(frozen=True)
class Concept:
    """One emoji concept: its names by language, and every English surface (name or keyword) that stands for it."""

    id: str  # code points in lower case, '1f436'
    category: str  # of Unicode, 'Animals & Nature'
    subcategory: str  # 'animal-mammal'
    names: dict[str, str]
    synonyms: tuple[str, ...]

    @property
    def kind(self) -> str | None:
        """The English word for its kind; None if there is none."""
        return next((kind for start, kind in KINDS.items() if self.subcategory.startswith(start)), None)


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """The material of all documents, in an order that does not depend on the machine."""

    languages: tuple[str, ...]
    concepts: tuple[Concept, ...]
    glosses: tuple[tuple[str, str], ...]  # (word or phrase, its definition)

    @functools.cached_property
    def named(self) -> tuple[Concept, ...]:
        """The concepts with an English name."""
        return tuple(concept for concept in self.concepts if 'en' in concept.names)

    @functools.cached_property
    def things(self) -> tuple[Concept, ...]:
        """The named concepts that an image can show: no persons, faces or symbols."""
        return tuple(concept for concept in self.named if concept.category not in NO_THINGS)

    @functools.cached_property
    def groups(self) -> tuple[tuple[Concept, ...], ...]:
        """The named concepts by subcategory, without symbols and tiny groups."""
        no_symbols = [concept for concept in self.named if concept.category != 'Symbols']
        groups = _grouped(no_symbols, lambda concept: concept.subcategory).values()
        return tuple(group for group in groups if len(group) >= FEWEST_MEMBERS)

    @functools.cached_property
    def kinds(self) -> dict[str, tuple[Concept, ...]]:
        """The named concepts by kind, without those of no kind."""
        return _grouped([concept for concept in self.named if concept.kind], lambda concept: concept.kind)


def _grouped(concepts: list[Concept], key: Callable[[Concept], str]) -> dict[str, tuple[Concept, ...]]:
    groups: dict[str, list[Concept]] = {}
    for concept in concepts:
        groups.setdefault(key(concept), []).append(concept)
    return {name: tuple(group) for name, group in groups.items()}


def read_lexicon(raw: str | Path, languages: tuple[str, ...]) -> Lexicon:
    """Reads the folder that fetch.sh fills. FileNotFoundError says what is missing. English is always read.

    languages: the languages of names.
    """
    raw = Path(raw)
    wordnet = wordnet_of(raw)
    cldr = _locate(raw, 'n/cldr-annotations-full-*/package/annotations')
    emoji = _locate(raw, 'n/emoji-datasource-[0-9]*/package/emoji.json')
    missing = [language for language in languages if not (cldr / language).is_dir()]
    if missing:
        raise FileNotFoundError(f'{cldr} has no language {", ".join(missing)}. Its folders are the known languages.')
    return Lexicon(tuple(languages), tuple(_read_concepts(emoji, cldr, languages)), tuple(_read_glosses(wordnet)))


def wordnet_of(raw: Path) -> Path:
    """The folder of WordNet's files. FileNotFoundError says how to fetch it."""
    return _locate(raw, 'x/wordnet-base/usr/share/wordnet')


class Sense(NamedTuple):
    """A meaning of a noun."""

    file: int  # The lexicographer file (`man 5 lexnames`): 5 is animals, 6 artifacts, ...
    nouns: tuple[str, ...]  # All nouns with this meaning.
    definition: str  # Without examples.
    synset: str  # Its number in WordNet 3.0.
    hypernyms: tuple[str, ...]  # The numbers of the meanings right above it.


def read_synsets(wordnet: Path) -> dict[str, Sense]:
    """Number of a synset -> the meaning of its nouns (format: `man 5 wndb`)."""
    senses = {}
    for line in (wordnet / 'data.noun').read_text('utf-8').splitlines():
        if line[0] != ' ':  # The licence.
            fields, definition = split_synset(line)
            offset, file, _, count, *rest = fields.split()
            words, (number, *pointers) = rest[: 2 * int(count, 16)], rest[2 * int(count, 16) :]
            pointers = pointers[: 4 * int(number)]  # Kind, synset, part of speech, which of the words.
            above = (to for kind, to in zip(pointers[::4], pointers[1::4], strict=True) if kind in ('@', '@i'))
            nouns = (word.replace('_', ' ') for word in words[::2])
            senses[offset] = Sense(int(file), tuple(nouns), definition, offset, tuple(above))
    return senses


def first_senses(wordnet: Path) -> dict[str, Sense]:
    """Noun -> its most frequent sense (format: `man 5 wndb`)."""
    senses, found = read_synsets(wordnet), {}
    for line in (wordnet / 'index.noun').read_text('utf-8').splitlines():
        if line[0] != ' ':
            lemma, _, number, *rest = line.split()
            found[lemma.replace('_', ' ')] = senses[rest[-int(number)]]  # They are in order of frequency.
    return found


def is_coarse(definition: str) -> bool:
    """Whether a definition is of a word that is not to be shown, or is an example and no definition."""
    return definition.startswith('"') or any(mark in definition for mark in COARSE)


def split_synset(line: str) -> tuple[str, str]:
    """A line of WordNet -> its fields, and the definition without the quoted examples (format: `man 5 wndb`)."""
    synset, gloss = line.split(' | ', 1)
    return synset, gloss.split('; "')[0].strip().rstrip(';')


def _locate(raw: Path, pattern: str) -> Path:
    found = sorted(raw.glob(pattern))
    if not found:
        raise FileNotFoundError(f'{raw / pattern} is missing. Fetch it with: data/dictionary_text/fetch.sh {raw}')
    return found[-1]


def _read_concepts(emoji: Path, cldr: Path, languages: tuple[str, ...]) -> list[Concept]:
    annotations = {
        language: json.loads((cldr / language / 'annotations.json').read_text('utf-8'))['annotations']['annotations']
        for language in {'en', *languages}
    }
    common = _common_keywords(annotations['en'])
    concepts = []
    for entry in sorted(json.loads(emoji.read_text('utf-8')), key=lambda entry: entry['sort_order']):
        if entry['category'] in UNUSED_CATEGORIES:
            continue
        character = ''.join(chr(int(point, 16)) for point in entry['unified'].split('-')).replace('\ufe0f', '')
        names = {}
        for language in languages:
            for name in filter(_is_name, annotations[language].get(character, {}).get('tts', [])):
                names[language] = name
        keywords = [word for word in annotations['en'].get(character, {}).get('default', []) if word not in common]
        words = filter(_is_name, [*keywords, *([names['en']] if 'en' in names else [])])
        if names:
            synonyms = {word.casefold(): word for word in words}
            id = entry['unified'].lower()
            concepts.append(Concept(id, entry['category'], entry['subcategory'], names, tuple(synonyms.values())))
    return concepts


def _common_keywords(entries: dict[str, dict]) -> set[str]:
    uses = collections.Counter(word for entry in entries.values() for word in entry.get('default', []))
    return {word for word, count in uses.items() if count > CONCEPTS_PER_KEYWORD}


def _is_name(text: str) -> bool:
    # Punctuation marks are among their own keywords, and some locales list several names with commas.
    has_letters = any(character.isalpha() for character in text)
    return has_letters and len(text) <= LONGEST_NAME and not any(mark in text for mark in ',،、:;\n↑')


def _read_glosses(wordnet: Path) -> list[tuple[str, str]]:
    """The first word of each synset with its definition, without the quoted examples (format: `man 5 wndb`)."""
    glosses = []
    for part in ('noun', 'verb', 'adj', 'adv'):
        for line in (wordnet / f'data.{part}').read_text('utf-8').splitlines():
            if line.startswith('  '):  # the licence
                continue
            synset, definition = split_synset(line)
            word = synset.split(' ')[4].split('(')[0].replace('_', ' ')  # adjectives: 'galore(ip)'
            if len(definition) <= LONGEST_DEFINITION and not is_coarse(definition):
                glosses.append((word, definition))
    return glosses
