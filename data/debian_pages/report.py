"""Prints, for each language of a built set, what was kept and what each rule dropped, as Markdown tables:

python -m data.debian_pages.report --data=DATA/debian_pages/all/1.0.0
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('data', None, 'Folder of the built set.', required=True)
    commands.start(__doc__)

import collections
import gzip
import itertools
import json
import pathlib
import statistics

from tqdm import tqdm

from flamingo_jax.building.duplicates import SHINGLE, runs_of_words
from flamingo_jax.inputs.sources.array_record import open_split


def language(url: str) -> str:
    """The language in which a page was published; its text may be another."""
    return url.split('/')[4]


def table(rows: list[list]) -> str:
    """A Markdown table."""
    lines = ['| ' + ' | '.join(str(cell) for cell in row) + ' |' for row in rows]
    return '\n'.join([lines[0], '|' + '---|' * len(rows[0]), *lines[1:]])


def alike(texts: list[str]) -> collections.Counter[float]:
    """How many pairs of texts share such a part of their runs of five words: of all that either has (Jaccard)."""
    runs = [set(runs_of_words(text, SHINGLE).tolist()) for text in texts]
    holders = collections.defaultdict(list)
    for number, some in enumerate(runs):
        for run in some:
            holders[run].append(number)
    shared = collections.Counter(pair for some in holders.values() for pair in itertools.combinations(some, 2))
    found: collections.Counter[float] = collections.Counter()
    for (one, other), number in shared.items():
        share = number / (len(runs[one]) + len(runs[other]) - number)
        found.update(least for least in (0.3, 0.5, 0.75, 0.85) if share >= least)
    return found


def main() -> None:
    """Prints the tables."""
    folder = pathlib.Path(flags.FLAGS.data)
    records = open_split(folder, 'train')
    images, characters, own = (collections.defaultdict(list) for _ in range(3))
    whole_texts = []
    for i in tqdm(range(len(records)), unit=' documents', leave=False):
        record = records[i]
        code = language(record['url'].decode())
        images[code].append(sum(len(image) > 0 for image in record['images']))
        characters[code].append(sum(len(text.decode()) for text in record['texts']))
        own[code].append(json.loads(record['meta'])['language'])
        whole_texts.append('\n'.join(text.decode() for text in record['texts'] if text))
    dropped = collections.Counter()
    whole = collections.Counter()
    for path in folder.glob('dropped-*.jsonl.gz'):
        with gzip.open(path, 'rt', encoding='utf-8') as lines:
            for one in map(json.loads, lines):
                code = language(one['where'])
                dropped[one['rule'], one['what'], code] += 1
                whole[code] += one['what'] in ('page', 'document')
    codes = sorted(images.keys() | whole.keys())
    rows = [['', *codes]]
    rows.append(['pages', *(len(images[code]) + whole[code] for code in codes)])
    rows.append(['documents kept', *(len(images[code]) for code in codes)])
    for found in sorted({one for some in own.values() for one in some}):
        if sum(some.count(found) for some in own.values()) >= 5:
            rows.append([f'of these in the language {found}', *(own[code].count(found) for code in codes)])
    rows.append(['images', *(sum(images[code]) for code in codes)])
    rows.append(['images a document', *(f'{statistics.mean(images[code] or [0]):.1f}' for code in codes)])
    rows.append(['characters', *(f'{sum(characters[code]):,}' for code in codes)])
    print(table(rows) + '\n')
    rules = sorted({(what, rule) for rule, what, _ in dropped})
    print(table([['dropped', 'rule', *codes]] + [[w, f'`{r}`', *(dropped[r, w, c] for c in codes)] for w, r in rules]))
    found = dict(sorted(alike(whole_texts).items()))
    print('\n' + table([['pairs of documents that share', *found], ['', *found.values()]]))


if __name__ == '__main__':
    main()
