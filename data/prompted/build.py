"""Stills and clips that models made, with the prompts that they were made from.

    data/prompted/fetch.sh RAW
    python -m data.prompted.build --raw=RAW --out=DATA

DATA/prompted/full/1.0.0 has documents (`Documents`).

They are the examples of ComfyUI's workflows. `index.json` lists the workflows with their tags. `NAME.json` beside it is
a workflow, a graph of nodes, and its example is `NAME-1.webp`. Nothing in a workflow marks its prompt: it is the one
text of some words that a node holds.
"""

from absl import flags

from data import beam_flags
from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('raw', None, 'Folder that fetch.sh filled.', required=True)
    beam_flags.define()
    commands.start(__doc__)

import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.builder import PublishedBuilder
from flamingo_jax.building.readers.containers import Row, documents, json_file, json_items
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder

# What is made from a text alone. A prompt that changes an image does not say what is to be seen.
MADE_FROM_TEXT = ('Text to Image', 'Text to Video')
FEWEST = 6  # Words of a prompt.
# What to avoid, instructions to a language model that rewrites prompts, and addresses.
NO_PROMPT = ('blurry', 'low quality', 'worst quality', 'pc game')
NO_PROMPT += ('You are', 'TARGET', '<s>[SYSTEM', '[META]', 'http', '{')


def read(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """The documents of an index: an example, and its prompt. `meta` has the model's name, and `generated`."""

    def make(row: Row) -> Iterator[Document | Dropped]:
        workflow, called = row.value, row.where
        tags = [tag for tag in workflow.get('tags', ()) if tag in MADE_FROM_TEXT]
        if not tags or workflow.get('io', {}).get('inputs'):
            return
        about = dict(generated=True, models=workflow.get('models', []))
        draft = Draft(called, **about, licence='MIT', source='ComfyUI workflow templates')
        graph = json_file(str(pathlib.Path(path).with_name(f'{called}.json')), called)
        prompts = set() if isinstance(graph, Dropped) else set(_prompts(graph.value))
        if len(prompts) != 1:
            yield from draft.give_up('not_one_prompt', called)
            return
        shown = draft.video if tags == ['Text to Video'] else draft.image
        shown(image_folder.read(f'{called}-1.webp'), called)
        draft.text(prompts.pop().strip())
        yield from draft.finish()

    def workflows(module: Row) -> Iterator[Document | Dropped]:
        return documents((Row(one['name'], one) for one in module.value['templates']), make)

    yield from documents(json_items(path, name), workflows)


def _prompts(graph: Any) -> Iterator[str]:
    """The prompts of a workflow and of the graphs within it."""
    if isinstance(graph, dict):
        if 'widgets_values' in graph and 'Note' not in graph.get('type', ''):
            if 'negative' not in str(graph.get('title', '')).lower():
                yield from _texts(graph['widgets_values'])
        graph = list(graph.values())
    if isinstance(graph, list):
        for one in graph:
            yield from _prompts(one)


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        words = [word for word in values.split() if any(letter.isalpha() for letter in word)]
        if len(words) >= FEWEST and not values.startswith(NO_PROMPT):
            yield values
    elif isinstance(values, list | dict):
        for one in values.values() if isinstance(values, dict) else values:
            yield from _texts(one)


class Prompted(PublishedBuilder, skip_registration=True):
    """Stills and clips made by models, with their prompts."""

    name = 'prompted'
    READERS = {'.json': read}


def main() -> None:
    """Builds them."""
    raw = f'{flags.FLAGS.raw}/prompted'
    config = tfds.core.BuilderConfig(name='full', version='1.0.0')
    source = f'{raw}/comfyui_workflow_templates_json/templates/index.json'
    beam_flags.build(Prompted, config, source=source, images=raw)


if __name__ == '__main__':
    main()
