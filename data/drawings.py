"""What the builders of drawings share: which phrases name a thing, and documents in the splits of their things.

Things are those of the picture dictionary, and what WordNet calls an animal, a plant, a food, an artefact, a natural
object or a part of a body, in the first sense of the word. A thing of the dictionary keeps its concept, its names in
36 languages and its split. So one concept is drawn by many artists, and no split leaks: other things are in the split
of the dictionary's words with the same head noun.
"""

import json
from pathlib import Path
from typing import Any

from data.dictionary_text.lexicon import first_senses, is_coarse, wordnet_of
from data.picture_dictionary import stamps
from data.picture_dictionary.picture_dictionary_dataset_builder import names_of, split_of
from data.svg import Thing
from flamingo_jax.building.readers.builder import PublishedBuilder
from flamingo_jax.building.runner import beam
from flamingo_jax.building.write import Sources
from flamingo_jax.inputs.sources.array_record import open_split

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
