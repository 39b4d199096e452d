"""TFDS builder of interleaved documents from the manuals in Debian packages, by the rules of web pages."""

import tensorflow_datasets as tfds

from data.web_pages.web_pages_dataset_builder import Builder as WebPages
from data.web_pages.web_pages_dataset_builder import Config


class Builder(WebPages):
    """Interleaved documents from GIMP's manual in many languages, see README.md."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [Config(name='all', description='every language that was fetched')]
