"""TFDS builder of interleaved documents from the manuals in Debian packages, by the rules of web pages."""

import dataclasses

import tensorflow_datasets as tfds

from data.web_pages.web_pages_dataset_builder import Builder as WebPages
from data.web_pages.web_pages_dataset_builder import Config
from flamingo_jax.building.rules import PageRules

# A manual shows the same original photograph beside the result of every filter. On the web, what is shown so often is a
# logo or a button; here those are too small.
RULES = PageRules(image_url_repeats=0, image_look_repeats=0)
# Other manuals have a chapter on a page, or all of a program. Training takes a window of it.
CHAPTERS = dataclasses.replace(RULES, document_max_words=0, document_max_images=0)


class Builder(WebPages):
    """Interleaved documents from GIMP's manual in many languages, see README.md."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [Config(name='all', description='every language that was fetched', rules=RULES)]
