"""Builds interleaved documents from GIMP's manual, or from another one:

    data/debian_pages/fetch.sh RAW en de ja
    python -m data.debian_pages.build --raw=RAW --out=DATA
    data/debian_pages/fetch.sh RAW debian-handbook
    python -m data.debian_pages.build --raw=RAW --out=DATA --manual=debian-handbook

The data set appears at DATA/debian_pages/all/VERSION, with its ledger, another manual at DATA/debian_pages/MANUAL.
It has every language that RAW has, or those of --languages: then it is at DATA/debian_pages/en_de/VERSION.
--rule.NAME=VALUE changes a rule, as for web pages.
"""

from absl import flags

from data import beam_flags, page_rules
from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('raw', None, 'Folder that fetch.sh filled.', required=True)
    flags.DEFINE_enum(
        'manual', 'gimp', ['gimp', 'debian-handbook', 'kicad', 'scikit-learn', 'stellarium'], 'Which manual.'
    )
    flags.DEFINE_list('languages', [], 'Languages of RAW to read; none is all.')
    flags.DEFINE_list('benchmarks', [], 'Folders and files of evaluation sets, whose images and texts are left out.')
    page_rules.define()
    beam_flags.define()
    commands.start(__doc__)

import pathlib
import tempfile

from data.debian_pages.crawl import MANUALS, folders, write_warcs
from data.debian_pages.debian_pages_dataset_builder import CHAPTERS, RULES, Builder, Config
from flamingo_jax.building.duplicates import index_benchmarks


def main() -> None:
    """Writes the WARC files and builds from them."""
    f = flags.FLAGS
    raw = pathlib.Path(f.raw).absolute()
    manual = MANUALS[f.manual]
    found = folders(raw, manual)
    chosen = f.languages or sorted(found)
    missing = [language for language in chosen if language not in found]
    if missing or not chosen:
        where = f' in the language {missing[0]}' if missing else ''
        named = ' '.join(missing or ['en', 'de']) if f.manual == 'gimp' else manual.packages.replace('*', 'en')
        raise FileNotFoundError(f'{raw} has no manual{where}. Run data/debian_pages/fetch.sh {f.raw} {named}.')
    warcs = raw / 'warc' / f.manual
    warcs.mkdir(parents=True, exist_ok=True)
    paths = tuple(path for language in chosen for path in write_warcs(manual, found[language], language, out=warcs))
    name = '_'.join(([] if f.manual == 'gimp' else [f.manual]) + f.languages) or 'all'
    rules = page_rules.changed(RULES if f.manual == 'gimp' else CHAPTERS)
    config = Config(name=name, description=f'{f.manual}, {" ".join(chosen)}', rules=rules) if name != 'all' else name
    with tempfile.TemporaryDirectory() as folder:
        benchmarks = index_benchmarks(f.benchmarks, rules, f'{folder}/benchmarks.npz') if f.benchmarks else ''
        where = dict(warcs=paths, benchmarks=benchmarks, licence=manual.licence)
        beam_flags.build(Builder, config, rules=rules, **where)


if __name__ == '__main__':
    main()
