"""The answers of a model on disk, so that no question is asked twice: an evaluation that was stopped goes on.

    unfinished.json           what is evaluated, until its reports are written
    answers/PROCESS.jsonl     a line for each answer: {"asked": digest, "answer": ...}

The digest is of all that the answer depends on: the checkpoint, how the answer is given, the prompt with its pictures,
and the candidates. Other tasks, other seeds, another order and other machines find the answers that they share.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax

from flamingo_jax.evaluation.report import as_json
from flamingo_jax.few_shot.episode import Episode
from flamingo_jax.files import Path, as_path, in_bucket, write_whole

FILE, FOLDER = 'unfinished.json', 'answers'


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
        self._file = workdir and as_path(workdir) / FOLDER / f'{jax.process_index()}.jsonl'
        self._own = ''
        for file in sorted(self._file.parent.glob('*.jsonl')) if self._file else ():
            lines = file.read_text(encoding='utf-8')
            self._own = lines if file == self._file else self._own
            for line in lines.splitlines():
                try:
                    line = json.loads(line)
                except ValueError:  # Cut short when its process was stopped.
                    continue
                self._answers[line['asked']] = line['answer']

    def __len__(self) -> int:
        return len(self._answers)

    def digest(self, trees: Any, answering: Any, prompt: Any, episode: Episode) -> str:
        """What identifies a question.

        Args:
          trees: the names of the trees that answer: the language model alone has fewer.
          answering: how the answer is given, a dataclass.
          prompt: its texts, and the identities of its pictures.
          episode: whose candidates are ranked.
        """
        how = type(answering).__name__, dataclasses.asdict(answering)
        candidates = episode.candidates, {c: list(spellings) for c, spellings in episode.written.items()}
        about = (
            self._checkpoint,
            sorted(trees),
            how,
            prompt,
            candidates,
            episode.form,
            episode.ends,
            len(episode.support),
        )
        return hashlib.sha256(as_json(about).encode()).hexdigest()

    def get(self, asked: str) -> Any:
        """The answer to the question with this digest, or None."""
        return self._answers.get(asked)

    def add(self, answers: Mapping[str, Any], own: bool = True) -> None:
        """Keeps answers by digest. own: whether they are this process's, which writes them to disk."""
        self._answers |= answers
        if self._file and own and answers:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            cut = self._own[-1:] not in ('', '\n')
            lines = [json.dumps(dict(asked=asked, answer=answer)) + '\n' for asked, answer in answers.items()]
            more = '\n' * cut + ''.join(lines)
            self._own += more
            if in_bucket(self._file):  # Nothing can be added to an object.
                write_whole(self._file, self._own.encode())
                return
            with open(self._file, 'a', encoding='utf-8') as file:
                file.write(more)


def begin(workdir: str | Path, about: Mapping[str, Any]) -> Callable[[], None]:
    """Notes what is evaluated in a folder, and returns what removes the note when the reports are written.

    ValueError if another evaluation is unfinished there; the message names the first difference. Which tasks are asked
    may differ, but not how.
    """
    file, here = as_path(workdir) / FILE, json.loads(as_json(about))
    if file.is_file():
        there = json.loads(file.read_text(encoding='utf-8'))
        both = [one.get('config', {}).get('tasks', {}) for one in (there, here)]
        for tasks in both:
            for name in tasks.keys() - (both[0].keys() & both[1].keys()):
                del tasks[name]
        if different := _difference(there, here):
            raise ValueError(
                f'{file} says that an evaluation is unfinished, which differs in {different}. Finish it, remove the '
                'file, or give another --workdir.'
            )
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
