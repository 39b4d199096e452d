"""docs/tutorial.ipynb runs from beginning to end, and then says what it shows in the repository."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

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
    scores = dict(re.findall('^(model|shuffled images|chance) +([0-9.]+) ±', everything, re.MULTILINE))
    assert float(scores['model']) > 0.5 > float(scores['shuffled images']) and float(scores['chance']) == 0.2
    for name, word in TAUGHT.items():
        (answers,) = re.findall(f'{name} +before: (.*?) +after: (.*?) +taught: (.*)', everything)
        assert answers[0] != word and answers[1:] == (word, word)
    assert sum('image/png' in output.get('data', {}) for cell in cells for output in cell.outputs) == 2


def test_its_outputs_in_the_repository_are_whole_and_small():
    check(nbformat.read(NOTEBOOK, as_version=4))
    assert NOTEBOOK.stat().st_size < 150_000


def as_documented() -> list[str]:
    """The command by which the notebook says that it is run."""
    text = '\n'.join(cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells)
    (line,) = re.findall('^(jupyter execute .*)$', text, re.MULTILINE)
    return line.split()


def run(copy: pathlib.Path) -> None:
    """Runs a copy of the notebook as it is documented, with this Python's own `jupyter`."""
    environment = os.environ | dict(PATH=f'{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    line = [str(copy) if part == 'docs/tutorial.ipynb' else part for part in as_documented()]
    done = subprocess.run([*line, '--timeout=1800'], cwd=copy.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_documented_command_keeps_the_output(tmp_path):
    """On a notebook of one line, which does not take long."""
    copy = tmp_path / 'tutorial.ipynb'
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('print(6 * 7)')]), copy)
    run(copy)
    assert said(nbformat.read(copy, as_version=4).cells[0]) == '42\n'


@pytest.mark.long
def test_it_runs_from_beginning_to_end(tmp_path):
    copy = tmp_path / 'tutorial.ipynb'
    shutil.copy(NOTEBOOK, copy)
    book = nbformat.read(copy, as_version=4)
    for cell in book.cells:
        if cell.cell_type == 'code':
            cell.outputs = []
    nbformat.write(book, copy)
    run(copy)
    check(nbformat.read(copy, as_version=4))
    assert list(tmp_path.iterdir()) == [copy]  # It writes to folders of its own.
