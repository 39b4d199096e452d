"""TFDS builder of interleaved documents from web pages in WARC files. All of its work is in `flamingo_jax.building`."""

import dataclasses
from typing import Any

import tensorflow_datasets as tfds

from flamingo_jax.building.runner import beam  # isort: skip. It names the extra that is missing.
from flamingo_jax.building.pages import PageSource
from flamingo_jax.building.rules import OBELICS, PageRules, differing
from flamingo_jax.building.write import DocumentsBuilder, Sources


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """The rules by which pages, texts and images are kept."""

    rules: PageRules = dataclasses.field(default_factory=PageRules)


class Builder(DocumentsBuilder):
    """Interleaved documents from web pages, see README.md."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [
        Config(name='all', description='every language'),
        Config(name='obelics', description="OBELICS's own values", rules=OBELICS),
    ]

    def __init__(
        self,
        *,
        warcs: tuple[str, ...] = (),
        images: str = '',
        benchmarks: str = '',
        licence: str = '',
        rules: PageRules | None = None,
        **rest,
    ):
        """warcs, images, benchmarks, licence: as in `PageSource`. rules: in place of those of the config."""
        self._rules = rules
        self._where = dict(warcs=warcs, images=images, benchmarks=benchmarks, licence=licence)
        super().__init__(**rest)

    def sources(self, pipeline: beam.Pipeline, work: str) -> Sources:
        """The documents of all files."""
        return PageSource(rules=self._rules or self.builder_config.rules, **self._where).sources(pipeline, work)

    def changed_rules(self) -> dict[str, Any]:
        """The rules that are not the default's."""
        return differing(self._rules or self.builder_config.rules)
