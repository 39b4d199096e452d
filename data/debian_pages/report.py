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
import json
import pathlib
import statistics

from tqdm import tqdm

from flamingo_jax.inputs.sources.array_record import open_split


def language(url: str) -> str:
    """The language in which a page was published; its text may be another."""
    return url.split('/')[4]


def table(rows: list[list]) -> str:
    """A Markdown table."""
    lines = ['| ' + ' | '.join(str(cell) for cell in row) + ' |' for row in rows]
    return '\n'.join([lines[0], '|' + '---|' * len(rows[0]), *lines[1:]])


def main() -> None:
    """Prints the tables."""
    folder = pathlib.Path(flags.FLAGS.data)
    records = open_split(folder, 'train')
    pictures, characters, own = (collections.defaultdict(list) for _ in range(3))
    for i in tqdm(range(len(records)), unit=' documents', leave=False):
        record = records[i]
        code = language(record['url'].decode())
        pictures[code].append(sum(len(image) > 0 for image in record['images']))
        characters[code].append(sum(len(text.decode()) for text in record['texts']))
        own[code].append(json.loads(record['meta'])['language'])
    dropped = collections.Counter()
    whole = collections.Counter()
    for path in folder.glob('dropped-*.jsonl.gz'):
        with gzip.open(path, 'rt') as lines:
            for one in map(json.loads, lines):
                code = language(one['where'])
                dropped[one['rule'], one['what'], code] += 1
                whole[code] += one['what'] in ('page', 'document')
    codes = sorted(pictures)
    rows = [['', *codes]]
    rows.append(['pages', *(len(pictures[code]) + whole[code] for code in codes)])
    rows.append(['documents kept', *(len(pictures[code]) for code in codes)])
    for found in sorted({one for some in own.values() for one in some}):
        if sum(some.count(found) for some in own.values()) >= 5:
            rows.append([f'of these in the language {found}', *(own[code].count(found) for code in codes)])
    rows.append(['pictures', *(sum(pictures[code]) for code in codes)])
    rows.append(['pictures a document', *(f'{statistics.mean(pictures[code]):.1f}' for code in codes)])
    rows.append(['characters', *(f'{sum(characters[code]):,}' for code in codes)])
    print(table(rows) + '\n')
    rules = sorted({(what, rule) for rule, what, _ in dropped})
    print(table([['dropped', 'rule', *codes]] + [[w, f'`{r}`', *(dropped[r, w, c] for c in codes)] for w, r in rules]))


if __name__ == '__main__':
    main()
