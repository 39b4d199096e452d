"""The finished rows of an evaluation, kept on disk so that an interrupted evaluation can go on.

    unfinished.jsonl    first what is evaluated, then a line for each finished row of the table, with its examples

It is removed when the reports are written. The same command finds it and goes on.
"""

import base64
import dataclasses
import json
from typing import Any

from flamingo_jax.evaluation.contact_sheet import Example
from flamingo_jax.evaluation.report import Row, Score, as_json
from flamingo_jax.files import as_path, write_whole

FILE = 'unfinished.jsonl'


class Unfinished:
    """The finished rows of an evaluation, by an earlier command or by this one."""

    def __init__(self, workdir: str, about: dict[str, Any]):
        """Reads the rows of an earlier command.

        about: everything that a row depends on.

        ValueError if they are of another evaluation; the message names the first difference.
        """
        self._file = as_path(workdir) / FILE
        self._about = json.loads(as_json(about))
        self._done: dict[str, tuple[Row, list[Example]]] = {}
        self._lines = [json.dumps(self._about) + '\n']
        if not self._file.is_file():
            return
        head, *lines = self._file.read_text(encoding='utf-8').splitlines(keepends=True) or ['']
        lines = [line for line in lines if line.endswith('\n')]  # The last line may be cut short.
        try:
            before = json.loads(head)
        except ValueError:  # Stopped before anything was measured.
            return
        if different := _difference(before, self._about):
            raise ValueError(
                f'{self._file} has an unfinished evaluation, which differs in {different}. Finish it, remove the '
                'file, or give another --workdir.'
            )
        self._lines += lines
        for line in lines:
            row, examples = _read(json.loads(line))
            self._done[_key(row.task, row.shots, row.support, row.answers, row.seed)] = row, examples

    def __len__(self) -> int:
        return len(self._done)

    def get(self, task: str, shots: int, support: str, answers: str, seed: int) -> tuple[Row, list[Example]] | None:
        """A finished row with its examples, or None."""
        return self._done.get(_key(task, shots, support, answers, seed))

    def add(self, row: Row, examples: list[Example]) -> None:
        """Writes a row to disk."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._done[_key(row.task, row.shots, row.support, row.answers, row.seed)] = row, examples
        fields = [dataclasses.asdict(example) for example in examples]
        for example in fields:
            example['chunks'] = [(data and base64.b64encode(data).decode(), text) for data, text in example['chunks']]
        self._lines.append(json.dumps(dict(row=dataclasses.asdict(row), examples=fields)) + '\n')
        write_whole(self._file, ''.join(self._lines).encode())  # In a bucket, nothing can be added to a file.

    def remove(self) -> None:
        """Removes the file. Call it when the reports are written."""
        self._file.unlink(missing_ok=True)


def _key(*setting: Any) -> str:
    return json.dumps(setting)


def _read(line: dict[str, Any]) -> tuple[Row, list[Example]]:
    scores = {name: Score(**score) for name, score in line['row']['scores'].items()}
    examples = []
    for example in line['examples']:
        chunks = tuple((data and base64.b64decode(data), text) for data, text in example['chunks'])
        examples.append(Example(**example | dict(chunks=chunks)))
    return Row(**line['row'] | dict(scores=scores, seeds=tuple(line['row']['seeds']))), examples


def _difference(there: Any, here: Any, name: str = '') -> str:
    """The first difference of two JSON trees; '' if they are equal."""
    if isinstance(there, dict) and isinstance(here, dict):
        nothing = object()
        for key in sorted(there.keys() | here.keys()):
            if found := _difference(there.get(key, nothing), here.get(key, nothing), f'{name}.{key}'.lstrip('.')):
                return found
        return ''
    return '' if there == here else f'{name} (there {_shown(there)}, here {_shown(here)})'


def _shown(value: Any) -> str:
    return 'nothing' if type(value) is object else repr(value)
