"""Tables of data as Markdown, and code as it stands."""

import re
from typing import Any

from flamingo_jax.building.texts import without_controls

LAYOUT = 'table, img, picture, p, ul, ol, dl, pre, blockquote, h1, h2, h3, h4, form, iframe, video'
LANGUAGE = re.compile(r'(?:language|lang|highlight-source)-([\w+#]{1,20})')


def markdown(table: Any) -> str:
    """A table of data as Markdown, whose first row is the head; '' if a page uses it to lay out other things."""
    if (table.getattr('role') or '').lower() in ('presentation', 'none') or table.query_selector(LAYOUT) is not None:
        return ''
    rows = [
        [cell for part in row.children if part.tag in ('td', 'th') for cell in _cells(part)]
        for row in table.get_elements_by_tag_name('tr')
    ]
    rows = [row for row in rows if any(row)]
    width = max(map(len, rows), default=0)
    if len(rows) < 2 or width < 2:
        return ''
    head, *others = ['| ' + ' | '.join(row + [''] * (width - len(row))) + ' |' for row in rows]
    return '\n'.join([head, '|' + ' --- |' * width, *others])


def _cells(part) -> list[str]:
    """The text of a cell, and an empty one for each further column that it spans."""
    text = without_controls(' '.join((part.text or '').split())).replace('|', r'\|')
    span = part.getattr('colspan') or ''
    return [text] + [''] * (min(int(span), 100) - 1 if span.isascii() and span.isdigit() else 0)


def code(pre: Any) -> str:
    """What stands in a <pre>, between fences that are longer than those in it; '' if nothing does."""
    lines = without_controls((pre.text or '').replace('\r\n', '\n')).strip('\n').rstrip()
    if not lines.strip():
        return ''
    inner = pre.query_selector('code')
    named = LANGUAGE.search(' '.join(one.class_name or '' for one in (pre, inner) if one is not None))
    fence = '`' * max(3, 1 + max((len(run) for run in re.findall('`+', lines)), default=0))
    return f'{fence}{named[1] if named else ""}\n{lines}\n{fence}'
