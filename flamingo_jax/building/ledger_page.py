"""The ledger as one self-contained HTML file: counts, documents as they were kept beside what they lost, and samples
of what each rule dropped."""

import gzip
import html
import json
import pathlib
from collections.abc import Mapping
from typing import Any

SHOWN = 60  # Most dropped things that are shown beside a document.


def write(folder: pathlib.Path, name: str, counts: Mapping[str, Any], samples: Mapping[str, Any]) -> None:
    """Writes FOLDER/ledger.html.

    Args:
      folder: a built data set, with its `dropped-*.jsonl.gz`.
      name: of the data set.
      counts: {'kept': {split: {...}}, 'dropped': {rule: {what: number}}, 'rules': {name: value}}.
      samples: {'kept': {split: [document]}, 'dropped': {rule: [thing]}}, with thumbnails.
    """
    urls = {document['url'] for some in samples['kept'].values() for document in some} - {''}
    lost = _lost(folder, urls)
    body = [f'<h1>{html.escape(name)}: kept and dropped</h1>', _kept_table(counts['kept'])]
    body.append(_dropped_table(counts['dropped']))
    if counts['rules']:
        changed = ', '.join(f'{rule} = {value}' for rule, value in counts['rules'].items())
        body.append(f'<p>Rules that are not the default: {html.escape(changed)}</p>')
    for split, documents in sorted(samples['kept'].items()):
        body.append(f'<h2>Documents of the split {html.escape(split)}</h2>')
        body.append('<p class=hint>Left: as it was kept. Right: what it lost, in reading order.</p>')
        body += [_document(document, lost.get(document['url'], [])) for document in documents]
    for rule, things in samples['dropped'].items():
        number = sum(counts['dropped'][rule].values())
        body.append(f'<h2 id="{html.escape(rule)}">{html.escape(rule)}: {number:,} dropped</h2><div class=things>')
        body += [_thing(thing, where=True) for thing in things]
        body.append('</div>')
    text = _PAGE.format(title=html.escape(name), body='\n'.join(body))
    (folder / 'ledger.html').write_text(text, encoding='utf-8', errors='replace')


def _lost(folder: pathlib.Path, urls: set[str]) -> dict[str, list[dict[str, Any]]]:
    """What some pages lost, in reading order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob('dropped-*.jsonl.gz')):
        with gzip.open(path, 'rt', encoding='utf-8') as lines:
            for line in lines:
                thing = json.loads(line)
                if thing['where'] in urls:
                    found.setdefault(thing['where'], []).append(thing)
    return {url: sorted(things, key=lambda thing: thing['place']) for url, things in found.items()}


def _kept_table(kept: Mapping[str, Mapping[str, Any]]) -> str:
    rows = ''
    for split, numbers in kept.items():
        for what, number in numbers.items():
            shown = ', '.join(f'{k} {v:,}' for k, v in number.items()) if isinstance(number, dict) else f'{number:,}'
            rows += f'<tr><td>{html.escape(split)}<td>{html.escape(what)}<td>{html.escape(shown)}'
    return f'<table><tr><th>split<th>kept<th>number{rows}</table>'


def _dropped_table(dropped: Mapping[str, Mapping[str, int]]) -> str:
    rows = ''
    for rule, numbers in sorted(dropped.items(), key=lambda item: -sum(item[1].values())):
        what = ', '.join(f'{number:,} {what}' for what, number in numbers.items())
        rows += f'<tr><td><a href="#{html.escape(rule)}">{html.escape(rule)}</a><td>{html.escape(what)}'
    return f'<table><tr><th>rule<th>dropped{rows}</table>'


def _document(document: Mapping[str, Any], lost: list[dict[str, Any]]) -> str:
    parts = ''
    for part in document['parts']:
        parts += (
            f'<p dir=auto>{html.escape(part["text"])}</p>' if 'text' in part else f'<img src="{part["image"]}" alt="">'
        )
    more = f'<p class=hint>and {len(lost) - SHOWN} more</p>' if len(lost) > SHOWN else ''
    things = ''.join(_thing(thing) for thing in lost[:SHOWN])
    meta = html.escape(json.dumps({k: v for k, v in document['meta'].items() if k != 'images'}, ensure_ascii=False))
    title = html.escape(document['url'] or document['id'])
    return (
        f'<h3>{title}</h3><p class=hint>{meta}</p><div class=pair><div class=kept>{parts}</div>'
        f'<div class=lost>{things}{more}</div></div>'
    )


def _thing(thing: Mapping[str, Any], where: bool = False) -> str:
    value = f' ({thing["value"]})' if 'value' in thing else ''
    image = f'<img src="{thing["image"]}" alt="">' if thing.get('image') else ''
    place = f'<br><small>{html.escape(thing["where"])}</small>' if where else ''
    label = f'<b>{html.escape(thing["rule"])}</b>{value}'
    return f'<div class=thing>{label} {image}<span dir=auto>{html.escape(thing["excerpt"])}</span>{place}</div>'


_PAGE = """<!doctype html><meta charset=utf-8><title>{title}</title><style>
body{{font:14px/1.45 sans-serif;margin:2em auto;max-width:1200px;padding:0 1em;color:#222}}
table{{border-collapse:collapse;display:inline-table;margin:0 2em 1em 0;vertical-align:top}}
td,th{{border:1px solid #ccc;padding:2px 8px;text-align:left}}
.pair{{display:grid;grid-template-columns:1fr 1fr;gap:1em}} .things{{columns:2}}
.kept{{background:#f0f8f0;padding:.5em 1em;white-space:pre-line}} .lost{{background:#fbf1f0;padding:.5em}}
.thing{{border-bottom:1px solid #ddd;padding:3px;overflow-wrap:anywhere;break-inside:avoid}} .thing b{{color:#a33}}
.kept img{{display:block;margin:.3em 0}} img{{max-width:160px;max-height:160px;vertical-align:middle}}
.hint,small{{color:#777}} h3{{overflow-wrap:anywhere;margin-bottom:0}}
</style>{body}
"""
