"""What is written of one row beside the report: its prompts, and its answers as an evaluation server takes them."""

import json
import re

from flamingo_jax.evaluation import answered, report
from flamingo_jax.evaluation.asking import digests
from flamingo_jax.evaluation.episode_prompts import frames, prompt_of
from flamingo_jax.evaluation.setting import Setting
from flamingo_jax.evaluation.task import Task
from flamingo_jax.files import Path, as_path, write_whole
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.parallel import processes


def write_prompts(
    workdir: str | Path, setting: Setting, model: Pretrained, row: report.Row, kept: answered.Answered
) -> None:
    """Writes every prompt of a row as it was sent, those of the controls too, with the answer.

    The model's own answers have their scores.
    """
    lines, episodes = [], setting.episodes()
    for name in setting.controls:
        control = setting.control(name, model, episodes)
        seen = (lambda part: dict(image=part.key)) if control.shown is frames else control.shown
        for episode, digest in zip(control.episodes, digests(control, setting.answering, kept), strict=True):
            line = dict(way=name, id=episode.id, prompt=prompt_of(episode, seen, control.responder.tokenizer))
            line |= dict(answer=kept.get(digest), truth=episode.truth)
            if name == 'model':
                line |= {key: row.queries[episode.id][key] for key in ('answer', 'score')}
            lines.append(json.dumps(line, ensure_ascii=False, default=str) + '\n')
    write_whole(_file(workdir, 'prompts', row, '.jsonl'), ''.join(lines).encode())


def write_results(workdir: str | Path, task: Task, row: report.Row) -> None:
    """Writes the file for the task's evaluation server, if it has one."""
    results = task.results({id: query['answer'] for id, query in row.queries.items()})
    if results is not None:
        content = json.dumps(results, ensure_ascii=False).encode()
        file = write_whole(_file(workdir, 'results', row, '.json'), content)
        if not task.scored:
            processes.say(
                f'Task {task.name}: the answers to the split {task.query_split!r} are not published, so there is no '
                f'score. The answers of the model are in {file}, as the evaluation server takes them.'
            )


def _file(workdir: str | Path, folder: str, row: report.Row, suffix: str) -> Path:
    """A file of one row, in a folder that exists."""
    name = f'{row.task}_{row.answers}_{row.support}_{row.shots}_shots_seed_{row.seed}'
    path = as_path(workdir) / folder / (in_a_file_name(name) + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def in_a_file_name(text: str) -> str:
    """A text without the characters that a file name should not have."""
    return re.sub('[^A-Za-z0-9_-]+', '_', text)
