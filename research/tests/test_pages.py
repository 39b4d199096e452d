"""Every figure of the laboratory's pages names the commit at which it was measured."""

import pathlib
import re
import subprocess

import pytest

FOLDER = pathlib.Path(__file__).parents[1]
PAGES = [path for path in sorted(FOLDER.glob('*.md')) if path.name != 'README.md']
FENCE = re.compile(r'^```.*?^```', re.MULTILINE | re.DOTALL)
FIGURES = re.compile(r'^\|.*\d\.\d|\b0\.\d\d', re.MULTILINE)  # In a table or a share.
MEASURED = re.compile(r'^\*Measured at [^*]*\*$', re.MULTILINE)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_section_with_figures_says_where_they_were_measured(page):
    """Itself, or a section that it is in; what a page says at its top is of its top alone."""
    without = []
    above = []  # Of the headings above, the level and whether its text says it.
    for section in re.split(r'^(?=#+ )', FENCE.sub('', page.read_text()), flags=re.MULTILINE)[1:]:
        heading = section.partition('\n')[0]
        level = len(heading) - len(heading.lstrip('#'))
        above = [(of, said) for of, said in above if 1 < of < level] + [(level, bool(MEASURED.search(section)))]
        if FIGURES.search(section) and not any(said for _, said in above):
            without.append(heading)
    assert not without


def test_every_commit_is_in_the_history():
    named = {
        name for page in PAGES for said in MEASURED.findall(page.read_text()) for name in re.findall('`(.*?)`', said)
    }
    commits = sorted(name for name in named if re.fullmatch('[0-9a-f]{7}', name))
    shallow = subprocess.run(
        ['git', 'rev-parse', '--is-shallow-repository'], cwd=FOLDER, capture_output=True, text=True
    )
    if shallow.stdout.strip() != 'false':
        pytest.skip('This is no clone with its history.')
    lines = ''.join(f'{commit}^{{commit}}\n' for commit in commits)
    asked = subprocess.run(
        ['git', 'cat-file', '--batch-check'], cwd=FOLDER, input=lines, capture_output=True, text=True
    )
    assert len(commits) > 30 and [line for line in asked.stdout.splitlines() if ' commit ' not in line] == []
