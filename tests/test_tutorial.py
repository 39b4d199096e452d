"""docs/tutorial.ipynb runs from beginning to end, and then says what it shows in the repository."""

import pathlib
import re

import nbformat
import pytest

NOTEBOOK = pathlib.Path(__file__).parents[1] / 'docs' / 'tutorial.ipynb'
TAUGHT = {'gorilla': 'dax kuv', 'mushroom': 'zev gof', 'bus': 'mip lon'}


def said(cell) -> str:
    """The text that a cell's outputs show."""
    return '\n'.join(output.get('text') or output['data'].get('text/plain', '') for output in cell.outputs)


def check(book) -> None:
    """What the notebook promises of its outputs."""
    cells = [cell for cell in book.cells if cell.cell_type == 'code']
    everything = '\n'.join(map(said, cells))
    assert "'zev gof'" in everything  # The answer to the prompt.
    assert len(re.findall('the mushroom is ', everything)) == 3
    scores = dict(re.findall('^(model|shuffled pictures|chance) +([0-9.]+) ±', everything, re.MULTILINE))
    assert float(scores['model']) > 0.5 > float(scores['shuffled pictures']) and float(scores['chance']) == 0.2
    for name, word in TAUGHT.items():
        (answers,) = re.findall(f'{name} +before: (.*?) +after: (.*?) +taught: (.*)', everything)
        assert answers[0] != word and answers[1:] == (word, word)
    assert sum('image/png' in output.get('data', {}) for cell in cells for output in cell.outputs) == 2


def test_its_outputs_in_the_repository_are_whole_and_small():
    check(nbformat.read(NOTEBOOK, as_version=4))
    assert NOTEBOOK.stat().st_size < 150_000


@pytest.mark.long
def test_it_runs_from_beginning_to_end(tmp_path):
    import nbclient  # Slow, and the other test does without.

    book = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(book, timeout=1800, resources=dict(metadata=dict(path=str(tmp_path)))).execute()
    check(book)
    assert not list(tmp_path.iterdir())  # It writes to folders of its own.
