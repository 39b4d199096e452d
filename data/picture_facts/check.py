"""Compares the kinds of animals in facts.json with WordNet, where a kind is above its animals.

    data/dictionary_text/fetch.sh RAW
    python -m data.picture_facts.check --wordnet=RAW

The other questions have no answers in WordNet.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('wordnet', None, 'Folder that data/dictionary_text/fetch.sh filled.', required=True)
    commands.start(__doc__)

import json
from pathlib import Path

from data.dictionary_text.lexicon import Sense, read_synsets, wordnet_of

KINDS = 'what kind of animal is it?'


def above(sense: Sense, every: dict[str, Sense]) -> set[str]:
    """The nouns of all meanings above one."""
    nouns: set[str] = set()
    for number in sense.hypernyms:
        nouns |= {*every[number].nouns, *above(every[number], every)}
    return nouns


def main() -> None:
    """Prints the things of which WordNet does not say the kind."""
    every = read_synsets(wordnet_of(Path(flags.FLAGS.wordnet)))
    facts = json.loads((Path(__file__).parent / 'facts.json').read_text('utf-8'))[KINDS]
    kinds = {thing: kind for kind, things in facts.items() for thing in things}
    agreed = {noun for sense in every.values() for noun in sense.nouns if kinds.get(noun) in above(sense, every)}
    print(f'WordNet has {len(agreed)} of {len(kinds)} animals below their kinds, and not:')
    print(', '.join(f'{thing} ({kind})' for thing, kind in kinds.items() if thing not in agreed))


if __name__ == '__main__':
    main()
