"""A model card, Markdown -> a web page.

A card may come from anybody, so nothing in it becomes HTML but what is made here: headings, paragraphs, lists, tables,
code, bold text, and links to web addresses. All else is shown as it is written.
"""

import html
import itertools
import re
from collections.abc import Iterator

BLOCKS = dict(  # What the lines of a block begin with; other lines are a paragraph's.
    fence=re.compile(r'(```|~~~)'),
    code=re.compile(r' {4}'),
    heading=re.compile(r'#{1,6} '),
    table=re.compile(r'\|'),
    item=re.compile(r'[-*] '),
)
FRONT_MATTER = re.compile(r'\A---\n.*?^---\n', re.DOTALL | re.MULTILINE)
INLINE = re.compile(r'`([^`]+)`|\*\*(.+?)\*\*|\[([^\]]+)\]\(([^)\s]+)\)')
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Model card</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="style.css">
</head>
<body class="card">
<main>
{}
</main>
</body>
</html>
"""


def page(markdown: str) -> str:
    """The card as a page of HTML, without a script, and without the YAML before it, which is for machines."""
    return PAGE.format('\n'.join(_blocks(FRONT_MATTER.sub('', markdown).splitlines())))


def _kind(line: str) -> str:
    """What a line begins: a kind of `BLOCKS`, 'blank' or 'text'."""
    if not line.strip():
        return 'blank'
    return next((kind for kind, begins in BLOCKS.items() if begins.match(line)), 'text')


def _blocks(lines: list[str]) -> Iterator[str]:
    """The HTML of each block."""
    rest = lines
    while rest:
        kind = _kind(rest[0])
        number = _length(kind, rest)
        block, rest = rest[:number], rest[number:]
        if kind == 'heading':
            marks, text = block[0].split(' ', 1)
            yield f'<h{len(marks)}>{_inline(text.strip())}</h{len(marks)}>'
        elif kind == 'table':
            yield _table(block)
        elif kind == 'item':
            items = re.split(r'^[-*] ', '\n'.join(block), flags=re.MULTILINE)[1:]
            yield f'<ul>{"".join(f"<li>{_inline(item)}</li>" for item in items)}</ul>'
        elif kind in ('code', 'fence'):
            ended = block[-1].startswith(block[0][:3])
            code = [line[4:] for line in block] if kind == 'code' else block[1 : -1 if ended else None]
            yield f'<pre tabindex="0">{html.escape(chr(10).join(code).rstrip())}</pre>'
        elif kind == 'text':
            yield f'<p>{_inline(chr(10).join(block))}</p>'


def _length(kind: str, lines: list[str]) -> int:
    """How many lines the block has that begins with the first."""
    if kind in ('heading', 'blank'):
        return 1
    if kind == 'fence':
        ends = (i for i, line in enumerate(lines[1:], 2) if line.startswith(lines[0][:3]))
        return next(ends, len(lines))
    # A list goes on with lines that are set in. An indented line in a paragraph is the paragraph's.
    more = dict(item=('item', 'text', 'code'), text=('text', 'code'), code=('code',), table=('table',))[kind]
    return len(list(itertools.takewhile(lambda line: _kind(line) in more, lines)))


def _table(rows: list[str]) -> str:
    """A table; its first row is the head, and the second, of dashes, is left out."""
    cells = [[cell.strip() for cell in re.split(r'(?<!\\)\|', row.strip().removesuffix('|'))[1:]] for row in rows]
    shown = [row for row in cells if not all(re.fullmatch(r':?-+:?', cell) for cell in row)]
    html_rows = []
    for i, row in enumerate(shown):
        tag = 'td' if i else 'th'
        html_rows.append('<tr>' + ''.join(f'<{tag}>{_inline(cell)}</{tag}>' for cell in row) + '</tr>')
    return f'<div class="wide" tabindex="0"><table>{"".join(html_rows)}</table></div>'


def _inline(text: str) -> str:
    """Escaped text, with code, bold text and links to web addresses."""
    parts, at = [], 0
    for found in INLINE.finditer(text):
        parts.append(html.escape(text[at : found.start()]))
        code, bold, name, address = found.groups()
        if code:
            parts.append(f'<code>{html.escape(code)}</code>')
        elif bold:
            parts.append(f'<strong>{_inline(bold)}</strong>')
        elif re.match(r'https?://', address):
            parts.append(f'<a href="{html.escape(address)}" rel="noopener noreferrer">{_inline(name)}</a>')
        else:  # A file beside the card, which is not served; or no address of the web.
            parts.append(_inline(name))
        at = found.end()
    return ''.join(parts) + html.escape(text[at:])
