"""The contact sheet of an evaluation: prompts as the model saw them, in one self-contained HTML file.

Each example shows its prompt in reading order (image, text, image, text, ..., the query), then the model's answer
and the truth. Right and wrong answers are side by side, because a page of successes teaches little.

It is HTML rather than an image because names are in every script, which a browser can display. Each distinct image
is embedded once, as the background of a CSS class, because many prompts can share a support image.
"""

import base64
import collections
import dataclasses
import hashlib
import html
import io
from collections.abc import Sequence

import PIL.Image

from flamingo_jax.inputs import images

THUMBNAIL = 72  # Pixels of an embedded image's longer side. It is shown at 52, sharp on high-density screens.
AT_FIRST = 3  # Examples on each side of a task that are not folded.
LONG_PROMPT = 12  # A prompt of more images is folded after its first few.


@dataclasses.dataclass(frozen=True)
class Example:
    """One question to the model, with its answer."""

    task: str
    answers: str  # 'ranked' or 'open-ended'
    support: str  # 'random', 'fixed', 'rices' or 'rices by clip'
    shots: int
    # The prompt in reading order: an encoded image (PNG, WebP, JPEG) or None, and the text after it. The last chunk
    # is the query.
    chunks: tuple[tuple[bytes | None, str], ...]
    answer: str
    truth: str
    right: bool


def page(examples: Sequence[Example], title: str = 'Contact sheet') -> str:
    """The HTML document.

    Within a task and kind of answers, the first example of each setting comes before any second one.

    ImageError if an image cannot be read.
    """
    shown = {data for example in examples for data, _ in example.chunks if data is not None}
    classes = ''.join(
        f'.{_css_class(data)}{{background-image:url({_data_uri(data)})}}\n' for data in sorted(shown, key=_css_class)
    )
    groups: dict[tuple[str, str], list[Example]] = {}
    for example in examples:
        groups.setdefault((example.task, example.answers), []).append(example)
    sections = '\n'.join(_section(*key, group) for key, group in groups.items())
    return _PAGE.format(
        title=html.escape(title),
        style=_STYLE + classes,
        count=f'{len(examples)} examples' if len(examples) != 1 else '1 example',
        sections=sections or '<p>No examples were kept.</p>',
    )


def _section(task: str, answers: str, examples: list[Example]) -> str:
    sides = ''.join(
        _side(name, _settings_in_turn([example for example in examples if example.right == right]))
        for name, right in (('right', True), ('wrong', False))
    )
    heading = f'<h2>{html.escape(task)} <small>{html.escape(answers)}</small></h2>'
    return f'<section>{heading}<div class="sides">{sides}</div></section>'


def _settings_in_turn(examples: list[Example]) -> list[Example]:
    """Orders examples so that those not folded have different numbers of shots."""
    met = collections.Counter()
    turns = []
    for example in examples:
        setting = (example.support, example.shots)
        turns.append(met[setting])
        met[setting] += 1
    return [example for _, example in sorted(zip(turns, examples, strict=True), key=lambda pair: pair[0])]


def _side(name: str, examples: list[Example]) -> str:
    shown = ''.join(_article(example) for example in examples[:AT_FIRST]) or '<p class="none">none among these</p>'
    rest = examples[AT_FIRST:]
    if rest:
        shown += (
            f'<details><summary>{len(rest)} more</summary>{"".join(_article(example) for example in rest)}</details>'
        )
    return f'<div class="{name}"><h3>{name}</h3>{shown}</div>'


def _article(example: Example) -> str:
    *support, query = [_chunk(data, text) for data, text in example.chunks] or ['']
    if len(support) > LONG_PROMPT:
        first, folded = support[: LONG_PROMPT // 2], support[LONG_PROMPT // 2 :]
        summary = f'<summary>… {len(folded)} more</summary>'
        support = [*first, f'<details>{summary}<div class="prompt">{"".join(folded)}</div></details>']
    return (
        f'<article><div class="setting">{html.escape(example.support)}, {example.shots} '
        f'{"shot" if example.shots == 1 else "shots"}</div>'
        f'<div class="prompt">{"".join(support)}<div class="query">{query}'
        f'<dl><dt>model</dt><dd class="answer">{_text(example.answer)}</dd>'
        f'<dt>truth</dt><dd>{_text(example.truth)}</dd></dl></div></div></article>'
    )


def _chunk(data: bytes | None, text: str) -> str:
    image = '' if data is None else f'<i class="{_css_class(data)}" role="img" aria-label="image"></i>'
    return f'<span class="{"chunk" if image else "words"}">{image}{_text(text)}</span>'


def _text(text: str) -> str:
    """Escapes text and isolates its direction: an Arabic name must not reverse its neighbours."""
    return f'<bdi>{html.escape(text.strip())}</bdi>' if text.strip() else ''


def _css_class(data: bytes) -> str:
    return 'p' + hashlib.sha1(data, usedforsecurity=False).hexdigest()[:16]


def _data_uri(data: bytes) -> str:
    image = images.decode(data)
    kind = PIL.Image.open(io.BytesIO(data)).format.lower()
    if max(image.size) > THUMBNAIL or kind not in ('png', 'webp', 'jpeg'):
        image = image.convert('RGBA' if image.has_transparency_data else 'RGB')
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        file = io.BytesIO()
        image.save(file, 'WEBP', quality=85)
        kind, data = 'webp', file.getvalue()
    return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
<h1>{title}</h1>
<p class="lead">{count}: each prompt in reading order with the query outlined, then the model's answer and the truth.
Both sides are shown whatever the score. The scores are in report.txt.</p>
{sections}
</html>
"""

# Images have a white background in both schemes, since the model sees them so.
_STYLE = """:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --ink: #1d1d1f; --soft: #6a6a70;
  --line: #dededa; --right: #1b7f4d; --wrong: #b8322a; --query: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --page: #161618; --card: #212124; --ink: #ececee; --soft: #9c9ca4;
  --line: #38383d; --right: #5fcf97; --wrong: #ff8a80; --query: #74b3f2; } }
body { margin: 0 auto; padding: 20px; max-width: 1480px; background: var(--page); color: var(--ink);
  font: 14px/1.35 system-ui, 'Noto Sans', sans-serif; }
h1 { font-size: 20px; margin: 0; }
.lead { color: var(--soft); margin: 2px 0 0; }
h2 { font-size: 16px; margin: 18px 0 6px; }
small, .setting, .none, dt, summary { color: var(--soft); font-size: 12px; font-weight: normal; }
h3 { font-size: 13px; margin: 0 0 4px; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; }
@media (max-width: 720px) { .sides { grid-template-columns: 1fr; } }
.right h3, .right .answer { color: var(--right); }
.wrong h3, .wrong .answer { color: var(--wrong); }
.right h3::before { content: '✓ '; }
.wrong h3::before { content: '✗ '; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 6px 8px 8px;
  margin-bottom: 8px; }
.setting { margin-bottom: 4px; }
.prompt { display: flex; flex-wrap: wrap; gap: 8px 4px; align-items: flex-start; }
.chunk { display: inline-block; width: 64px; font-size: 11.5px; text-align: center; overflow-wrap: anywhere; }
.words { align-self: center; font-size: 13px; white-space: pre-wrap; overflow-wrap: anywhere; }
i { display: block; width: 52px; height: 52px; margin: 0 auto 3px; border-radius: 4px;
  border: 1px solid var(--line); background: #fff center / contain no-repeat; print-color-adjust: exact; }
.query { display: flex; gap: 6px; align-items: flex-start; }
.query i { outline: 2px solid var(--query); outline-offset: 1px; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 3px 8px; margin: 6px 0 0; align-items: baseline; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
summary { cursor: pointer; padding: 2px 0; }
"""
