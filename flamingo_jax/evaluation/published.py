"""Reads the published files of benchmarks. An error names the file, and what is missing or wrong in it."""

import contextlib
import contextvars
import csv
import difflib
import hashlib
import io
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from flamingo_jax.errors import UserError
from flamingo_jax.files import in_bucket

VIDEOS = ('.mp4', '.mkv', '.webm', '.avi', '.mov')

Record = dict[str, Any]

_found: contextvars.ContextVar[list[pathlib.Path]] = contextvars.ContextVar('found')


@contextlib.contextmanager
def digests() -> Iterator[dict[str, str]]:
    """Gives a dict that has, at the end, each file that `find` found meanwhile -> the sha256 of its bytes."""
    files: list[pathlib.Path] = []
    known: dict[str, str] = {}
    token = _found.set(files)
    try:
        yield known
    finally:
        _found.reset(token)
    for file in dict.fromkeys(files):
        with file.open('rb') as content:
            known[str(file)] = hashlib.file_digest(content, 'sha256').hexdigest()


def on_disk(folder: str | pathlib.Path) -> pathlib.Path:
    """The absolute path of a folder of published files; ~ is the home. ValueError: it is in a bucket."""
    if in_bucket(folder):
        raise UserError(f'{folder} is in a bucket. Copy the published files to this machine, and give their folder.')
    return pathlib.Path(folder).expanduser().absolute()


def find(folder: pathlib.Path, *names: str) -> pathlib.Path:
    """The first of these files or folders that exists; FileNotFoundError if none does."""
    for name in names:
        if (path := folder / name).exists():
            if path.is_file():
                _found.get([]).append(path)
            return path
    if not folder.is_dir():
        raise FileNotFoundError(f'There is no folder {folder}. Set --config.data to the folder of the published files.')
    wanted = folder / names[0]
    there = [path.name for path in wanted.parent.iterdir()] if wanted.parent.is_dir() else []
    close = ' or '.join(difflib.get_close_matches(wanted.name, sorted(there), 3))
    raise FileNotFoundError(
        f'There is no {wanted}{"".join(f", nor {name}" for name in names[1:])}. --config.data must be the folder of '
        'the published files, under their own names' + (f'. Perhaps it is there as {close}.' if close else '.')
    )


def video_file(folder: pathlib.Path, *stems: str) -> pathlib.Path:
    """The video of one of these names, whatever its suffix; the first name with .mp4 if there is none."""
    for stem in stems:
        for suffix in VIDEOS:
            if (path := folder / f'{stem}{suffix}').is_file():
                return path
    return folder / f'{stems[0]}.mp4'


def records(file: pathlib.Path, *keys: str, at: str = '') -> list[Record]:
    """The records of a file: .json (the list under the key `at`, or all of it), .jsonl or .csv.

    keys: what each record must have; all values of a .csv file are strings.

    ValueError if the file has another format.
    """
    found = read(file)
    if at:
        if not isinstance(found, Mapping) or at not in found:
            raise UserError(f'{file} has no {at!r}. It is not the file that the set publishes under this name.')
        found = found[at]
    if not isinstance(found, list):
        raise UserError(f'{file} must hold a list{f" under {at!r}" if at else ""}.')
    for number, record in enumerate(found):
        if not isinstance(record, Mapping):
            raise UserError(f'{file}, record {number} is {str(record)[:60]!r}. It must have {list(keys)}.')
        if missing := [key for key in keys if record.get(key) is None]:
            raise UserError(f'{file}, record {number} has no {missing[0]!r}; it has {sorted(map(str, record))}.')
    return found


def read(file: pathlib.Path) -> Any:
    """What a .json, .jsonl or .csv file holds; ValueError if it cannot be read."""
    try:
        text = file.read_text(encoding='utf-8-sig')
        if file.suffix == '.csv':
            return list(csv.DictReader(io.StringIO(text, newline='')))
        # OpenFlamingo's dev.json has lines, too.
        if file.suffix == '.jsonl' or re.match(r'\s*\{.*\}\s*\n\s*\{', text):
            return [json.loads(line) for line in text.split('\n') if line.strip()]
        return json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise UserError(f'{file} cannot be read: {error}. Download it again.') from error


def by_id(found: Iterable[Record], key: str, file: pathlib.Path) -> dict[str, Record]:
    """Records by their id. ValueError if two have the same."""
    ids: dict[str, Record] = {}
    for record in found:
        id = str(record[key])
        if id in ids:
            raise UserError(f'{file} has two records with the {key} {id}. Remove one.')
        ids[id] = record
    return ids


def split_file(split: str, files: Mapping[str, Any]) -> Any:
    """What belongs to a split; ValueError if there is no such split."""
    if split not in files:
        raise UserError(f'there is no split {split!r}. The splits are {sorted(files)}.')
    return files[split]


def with_mark(question: str) -> str:
    """A question with its question mark, which some files leave out."""
    question = question.strip()
    return question if question.endswith('?') else f'{question}?'


def most_frequent(answers: Sequence[str]) -> str:
    """The answer that most annotators gave; of several the first."""
    return max(answers, key=answers.count)
