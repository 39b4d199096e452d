"""Writes texts about the things of an image set, to distil a language model into the Flamingo that it is part of.

    data/dictionary_text/fetch.sh RAW
    python -m data.picture_texts.build --images=DATA/picture_dictionary/full/1.0.0 --wordnet=RAW --out=FILE.jsonl

For each English name there are beginnings of sentences, and its definition in WordNet, if it has one. No text needs an
answer: the language model, which reads the name, says how each goes on. Things of the validation and test splits are
left out, unless --splits names them. No text asks what data/picture_facts asks.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('images', None, 'Folder of a prepared image set.', required=True)
    flags.DEFINE_string('wordnet', None, 'Folder that data/dictionary_text/fetch.sh filled.', required=True)
    flags.DEFINE_string('out', None, 'File to write.', required=True)
    flags.DEFINE_list('splits', ['train'], 'Splits whose things get texts.')
    commands.start(__doc__)

import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from data.dictionary_text.lexicon import Sense, first_senses, wordnet_of
from data.picture_dictionary.picture_dictionary_dataset_builder import names_of
from flamingo_jax.files import write_whole
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.tasks.kinds import with_article

# (Words that can replace the image, what follows). {a} is the name with its article, {name} without.
BEGINNINGS = (
    ('{A}', ' is'),
    ('{A}', ' is a kind of'),
    ('{A}', ' is not a'),
    ('{A}', ' looks like'),
    ('{A}', ' and'),
    ('{A}', ' has'),
    ('{A}', ' can'),
    ('The {name}', ' was'),
    ('The {name}', ' in the image is'),
    ('{Name}', ':'),
    ('{Name}', ' ('),
    ('{Name}', ' is the name of a'),
    ('{Name}', ' in Spanish is'),
    ('This is {a}', '. It'),
    ('This is {a}', '. You can'),
    ('I saw {a}', ' and'),
    ('What is {a}', '? It is'),
    ('I like {a}', ' because'),
)
DEFINED = (('{A}', ' is {gloss}.'), ('{Name}', ': {gloss}.'), ('What is {a}', '? It is {gloss}.'))


def names(folder: str, splits: Sequence[str], styles: Sequence[str] = ()) -> list[str]:
    """The English names of the things that some styles show in some splits; () is all styles."""
    found = set()
    for split in splits:
        records = open_split(folder, split)
        for i in tqdm(range(len(records)), unit=' images', desc=split, leave=False):
            record = records[i]
            called = names_of(record)
            is_stamp = record['subcategory'].startswith(b'tux-')  # They have captions: `A frog`.
            in_style = not styles or record['style'].decode() in styles
            if 'en' in called and not is_stamp and in_style:
                found.add(called['en'])
    return sorted(found)


def texts(name: str, senses: dict[str, Sense]) -> Iterator[dict[str, str]]:
    """The texts about one thing."""
    sense = senses.get(name.casefold())
    a, gloss = with_article(name), sense and sense.definition
    words = dict(name=name, Name=name[:1].upper() + name[1:], a=a, A=a[:1].upper() + a[1:], gloss=gloss)
    for says, text in (*BEGINNINGS, *(DEFINED if gloss else ())):
        yield dict(name=name, says=says.format(**words), text=text.format(**words))


def write(path: str, lines: Iterable[dict[str, Any]]) -> None:
    """Writes a file of texts, as `flamingo_jax/tasks/texts.py` reads it."""
    out = pathlib.Path(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, ''.join(json.dumps(line) + '\n' for line in lines).encode())


def main() -> None:
    """Writes the texts."""
    f = flags.FLAGS
    senses, every = first_senses(wordnet_of(pathlib.Path(f.wordnet))), names(f.images, f.splits)
    lines = [text for name in every for text in texts(name, senses)]
    write(f.out, lines)
    print(f'{f.out}: {len(lines)} texts about {len(every)} things')


if __name__ == '__main__':
    main()
