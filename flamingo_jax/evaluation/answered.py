"""The answers of a model on disk, so that no question is asked twice: an evaluation that was stopped goes on.

    unfinished.json           what is evaluated, until its reports are written
    answers/PROCESS.jsonl     a line for each answer: {"asked": digest, "answer": ...}; in a bucket several objects

The digest is of all that the answer depends on: the checkpoint, how the answer is given, the prompt with its images,
and the candidates. Other tasks, other seeds, another order and other machines find the answers that they share.
"""

import dataclasses
import hashlib
import json
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import jax

from flamingo_jax import __version__
from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.report import as_json
from flamingo_jax.files import Path, as_path, in_bucket, write_whole
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.tasks.episode import Episode

FILE, FOLDER = 'unfinished.json', 'answers'
OBJECT = 2**20  # Characters of an object in a bucket, after which the next begins.


class Answered:
    """The answers of one checkpoint, by earlier commands and by this one."""

    def __init__(self, checkpoint: Any = None, workdir: str | Path | None = None):
        """Reads the answers in a folder.

        Args:
          checkpoint: all that tells this model from others, as JSON.
          workdir: where answers are kept; None keeps them in memory alone.
        """
        self._checkpoint = checkpoint
        self._answers: dict[str, Any] = {}
        self._file = as_path(workdir) / FOLDER / f'{jax.process_index()}.jsonl' if workdir else None
        self._cut = False  # Whether this process's file ends within a line.
        self._lines: list[str] = []  # Of this process's object, if it is in a bucket, where nothing can be added to it.
        self._last: tuple[Any, Any, str] = None, None, ''
        if self._file and in_bucket(self._file):
            self._file = self._another_object()
        for file in sorted(self._file.parent.glob('*.jsonl')) if self._file else ():
            with file.open('rb') as lines:
                for line in lines:
                    self._cut = not line.endswith(b'\n') if file == self._file else self._cut
                    try:
                        found = json.loads(line, object_pairs_hook=_interned)
                        self._answers[found['asked']] = found['answer']
                    except (ValueError, KeyError, TypeError):  # Cut short when its process was stopped, or damaged.
                        continue

    def __len__(self) -> int:
        return len(self._answers)

    def digest(self, trees: Any, answering: Any, prompt: Any, episode: Episode) -> str:
        """What identifies a question.

        Args:
          trees: the names of the trees that answer: the language model alone has fewer.
          answering: how the answer is given, a dataclass.
          prompt: its texts, and the identities of its images.
          episode: whose candidates are ranked.
        """
        how = type(answering).__name__, dataclasses.asdict(answering)
        about = (
            self._checkpoint,
            sorted(trees),
            how,
            prompt,
            self._candidates(episode),
            episode.form,
            episode.ends,
            len(episode.support),
        )
        return _digest(about)

    def _candidates(self, episode: Episode) -> str:
        """The digest of a question's candidates. A thousand classes are the same for each question of a set."""
        candidates, written, found = self._last
        if candidates is not episode.candidates or written is not episode.written:
            spelled = {candidate: list(spellings) for candidate, spellings in episode.written.items()}
            found = _digest((episode.candidates, spelled))
            self._last = episode.candidates, episode.written, found
        return found

    def get(self, asked: str) -> Any:
        """The answer to the question with this digest, or None."""
        return self._answers.get(asked)

    def add(self, answers: Mapping[str, Any], own: bool = True) -> None:
        """Keeps answers by digest. own: whether they are this process's, which writes them to disk."""
        self._answers |= answers
        if self._file and own and answers:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            more = ['\n'] * self._cut
            more += [json.dumps(dict(asked=asked, answer=answer)) + '\n' for asked, answer in answers.items()]
            self._cut = False
            if in_bucket(self._file):
                self._lines += more
                write_whole(self._file, ''.join(self._lines).encode())
                if sum(map(len, self._lines)) > OBJECT:  # Else each answer would upload all before it.
                    self._file, self._lines = self._another_object(), []
                return
            with open(self._file, 'a', encoding='utf-8') as file:
                file.writelines(more)

    def _another_object(self) -> Path:
        return self._file.parent / f'{jax.process_index()}-{uuid.uuid4().hex}.jsonl'


def _digest(about: Any) -> str:
    return hashlib.sha256(as_json(about).encode()).hexdigest()


def _interned(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Likelihoods have the names of all candidates, in each line anew."""
    return {sys.intern(key): value for key, value in pairs}


def identity_of(checkpoint: str | Path, model: Pretrained) -> list[Any]:
    """All that tells the model from others, for its answers."""
    trained = model.digest or [str(checkpoint), model.step]  # Without checksums, a run is told by its place.
    trained = None if model.step is None else trained
    tokenizer = hashlib.sha256(model.tokenizer.model).hexdigest()
    return [__version__, model.checksums, trained, tokenizer, dataclasses.asdict(model.model)]


def refuse_another(workdir: str | Path, about: Mapping[str, Any]) -> None:
    """ValueError if another evaluation is unfinished in a folder; the message names the first difference.

    Which tasks are asked may differ, but not how.
    """
    file, here = as_path(workdir) / FILE, json.loads(as_json(about))
    if not file.is_file():
        return
    there = json.loads(file.read_text(encoding='utf-8'))
    both = [one.get('config', {}).get('tasks', {}) for one in (there, here)]
    for tasks in both:
        for name in tasks.keys() - (both[0].keys() & both[1].keys()):
            del tasks[name]
    if different := _difference(there, here):
        raise UserError(
            f'{file} says that an evaluation is unfinished, which differs in {different}. Finish it, remove the file, '
            'or give another --workdir.'
        )


def begin(workdir: str | Path, about: Mapping[str, Any]) -> Callable[[], None]:
    """Notes what is evaluated in a folder, and returns what removes the note when the reports are written.

    ValueError as for `refuse_another`.
    """
    refuse_another(workdir, about)
    file = as_path(workdir) / FILE
    if jax.process_index() == 0:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, as_json(about).encode())
    return lambda: file.unlink(missing_ok=True)


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
