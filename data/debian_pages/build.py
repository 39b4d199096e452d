"""Builds interleaved documents from GIMP's manual:

    data/debian_pages/fetch.sh RAW en de ja
    python -m data.debian_pages.build --raw=RAW --out=DATA

The data set appears at DATA/debian_pages/all/VERSION, with its ledger. It has every language that RAW has, or those of
--languages: then it is at DATA/debian_pages/en_de/VERSION.
"""

from absl import flags

from data import beam_flags
from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('raw', None, 'Folder that fetch.sh filled.', required=True)
    flags.DEFINE_list('languages', [], 'Languages of RAW to read; none is all.')
    flags.DEFINE_list('benchmarks', [], 'Folders and files of evaluation sets, whose pictures and texts are left out.')
    beam_flags.define()
    commands.start(__doc__)

import pathlib
import tempfile

from data.debian_pages.crawl import LICENCE, languages, write_warcs
from data.debian_pages.debian_pages_dataset_builder import RULES, Builder, Config
from flamingo_jax.building.duplicates import index_benchmarks


def main() -> None:
    """Writes the WARC files and builds from them."""
    f = flags.FLAGS
    raw = pathlib.Path(f.raw).absolute()
    chosen = f.languages or languages(raw)
    if not chosen:
        raise FileNotFoundError(f'{raw} has no manual. Run data/debian_pages/fetch.sh {f.raw} en de.')
    warcs = raw / 'warc'
    warcs.mkdir(exist_ok=True)
    paths = tuple(path for language in chosen for path in write_warcs(raw, language, warcs))
    config = Config(name='_'.join(chosen), description=' '.join(chosen), rules=RULES) if f.languages else 'all'
    with tempfile.TemporaryDirectory() as folder:
        benchmarks = index_benchmarks(f.benchmarks, RULES, f'{folder}/benchmarks.npz') if f.benchmarks else ''
        where = dict(warcs=paths, benchmarks=benchmarks, licence=LICENCE)
        print(beam_flags.build(Builder, config, **where))


if __name__ == '__main__':
    main()
