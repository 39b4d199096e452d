"""Builds interleaved documents from web pages in WARC files:

    python -m data.web_pages.build --warc='CRAWL/*.warc.gz' --out=DATA

The data set appears at DATA/web_pages/all/VERSION, with its ledger. Images come from the WARC files themselves, then
from --images. --rule.NAME=VALUE changes a rule of flamingo_jax/building/rules.py, such as
--rule.document_max_words=0; the ledger says which were changed. README.md has the rest.
"""

from absl import flags

from data import beam_flags, page_rules
from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('warc', None, 'Glob of WARC files: gzip, zstd, lz4 or plain.', required=True)
    flags.DEFINE_string('images', '', 'Folder of images, at HOST/PATH or named by the SHA-256 of their URL.')
    flags.DEFINE_enum('config', 'all', ['all', 'obelics'], "all: the project's rules; obelics: OBELICS's own values.")
    flags.DEFINE_list('benchmarks', [], 'Folders and files of evaluation sets, whose images and texts are left out.')
    flags.DEFINE_list('languages', [], 'ISO 639-1 codes of the languages to keep; none keeps all.')
    page_rules.define()
    beam_flags.define()
    commands.start(__doc__)

import dataclasses
import pathlib
import tempfile

from data.web_pages.web_pages_dataset_builder import Builder, Config
from flamingo_jax.building.duplicates import index_benchmarks
from flamingo_jax.files import find


def main() -> None:
    """Builds what the flags name."""
    f = flags.FLAGS
    warcs = tuple(find(f.warc))
    if not warcs:
        raise FileNotFoundError(f'There is no file {f.warc}. Give a glob in quotes, such as --warc="CRAWL/*.warc.gz".')
    if f.images and not pathlib.Path(f.images).is_dir():
        raise FileNotFoundError(f'There is no folder {f.images}. Give one with --images, or leave it out.')
    config = Builder.builder_configs[f.config]
    rules = page_rules.changed(config.rules)
    if f.languages:
        rules = dataclasses.replace(rules, document_languages=tuple(f.languages))
        config = Config(name='_'.join([f.config, *f.languages]), description=config.description, rules=rules)
    with tempfile.TemporaryDirectory() as folder:
        benchmarks = index_benchmarks(f.benchmarks, rules, f'{folder}/benchmarks.npz') if f.benchmarks else ''
        where = dict(warcs=warcs, images=f.images and str(pathlib.Path(f.images).absolute()), benchmarks=benchmarks)
        beam_flags.build(Builder, config, rules=rules, **where)


if __name__ == '__main__':
    main()
