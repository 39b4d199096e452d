"""Writes texts about the things of a picture set, by the frozen language model that will see their pictures.

    python -m data.picture_texts.build --pictures=DATA/picture_dictionary/full/1.0.0 --lm=BUNDLE --out=FILE.jsonl

The language model continues beginnings that contain a thing's English name. Each text has a random name and beginning,
and ends at the end of its first line. Things of the validation and test splits are left out, unless --splits names
them.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('pictures', None, 'Folder of a prepared picture set.', required=True)
    flags.DEFINE_string('lm', None, 'Bundle of a language model.', required=True)
    flags.DEFINE_string('out', None, 'File to write.', required=True)
    flags.DEFINE_list('splits', ['train'], 'Splits whose things get texts.')
    flags.DEFINE_integer('texts', 8, 'Number of texts for each thing.', lower_bound=1)
    flags.DEFINE_integer('tokens', 20, 'Most tokens in a text.', lower_bound=1)
    flags.DEFINE_integer('seed', 0, 'Of drawing.')
    commands.start(__doc__)

import json
import pathlib

import numpy as np
from tqdm import tqdm

import flamingo_jax
from flamingo_jax.few_shot.kinds import with_article
from flamingo_jax.files import write_whole
from flamingo_jax.inputs.sources.array_record import open_split

# (Words that can replace the picture, what follows). {a} is the name with its article, {name} without.
BEGINNINGS = (
    ('{A}', ' is'),
    ('{A}', ' is a kind of'),
    ('{A}', ' is used for'),
    ('{A}', ' is made of'),
    ('{A}', ' can be found in'),
    ('{A}', ' looks like'),
    ('{A}', ' and'),
    ('{A}', ''),
    ('The {name}', ' was'),
    ('The {name}', ' in the picture'),
    ('The {name}', ''),
    ('{Name}', ':'),
    ('{Name}', ' (noun):'),
    ('This is {a}', '. It'),
    ('This is {a}', '. You can'),
    ('I saw {a}', ' and'),
    ('What is {a}', '? It is'),
    ('{Name}', '. Question: what kind of thing is it? Answer:'),
    ('{Name}', '. Question: what is it used for? Answer:'),
    ('{Name}', '. Question: where can you find it? Answer:'),
    ('{Name}', '. Question: what color is it? Answer:'),
    ('{Name}', '. Question: what is it made of? Answer:'),
)
BATCH = 32


def names(folder: str, splits: list[str]) -> list[str]:
    """The English names of the things in some splits."""
    found = set()
    for split in splits:
        records = open_split(folder, split)
        for i in tqdm(range(len(records)), unit=' pictures', desc=split, leave=False):
            languages = [language.decode() for language in records[i]['languages']]
            if 'en' in languages:
                found.add(records[i]['names'][languages.index('en')].decode())
    return sorted(found)


def main() -> None:
    """Writes the texts."""
    f = flags.FLAGS
    lm, rng, lines = flamingo_jax.load(f.lm), np.random.default_rng(f.seed), []
    every = [name for name in names(f.pictures, f.splits) for _ in range(f.texts)]
    for begin in tqdm(range(0, len(every), BATCH), unit=' batches', desc='texts'):
        asked = []
        for name in every[begin : begin + BATCH]:
            says, text = BEGINNINGS[rng.integers(len(BEGINNINGS))]
            a = with_article(name)
            says = says.format(name=name, Name=name[:1].upper() + name[1:], a=a, A=a[:1].upper() + a[1:])
            asked.append((name, says, text))
        prompts = [[says + text] for _, says, text in asked]
        prompts += prompts[-1:] * (BATCH - len(prompts))  # Padding, so that one program serves all.
        how = dict(max_new_tokens=f.tokens, temperature=0.8, top_p=0.95, stop=('\n',), seed=f.seed + begin)
        for (name, says, text), more in zip(asked, lm.generate(prompts, **how), strict=False):
            if text or more:
                lines.append(json.dumps(dict(name=name, says=says, text=f'{text} {more}'.rstrip())))
    out = pathlib.Path(f.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, ('\n'.join(lines) + '\n').encode())
    print(f'{out}: {len(lines)} texts about {len(set(every))} things')


if __name__ == '__main__':
    main()
