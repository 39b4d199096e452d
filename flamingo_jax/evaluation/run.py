"""An evaluation: every task of a config is asked at every setting, with its controls, and a report is written."""

import dataclasses
import importlib.util
import itertools
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from flamingo_jax import __version__
from flamingo_jax.evaluation import answered, checks, curves, paired, records, report, results_file
from flamingo_jax.evaluation.answered import Answered
from flamingo_jax.evaluation.asking import ask
from flamingo_jax.evaluation.contact_sheet import Example
from flamingo_jax.evaluation.episode_prompts import frames, lengths_of
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.report import Row
from flamingo_jax.evaluation.rices import BY_CLIP
from flamingo_jax.evaluation.scoring import score
from flamingo_jax.evaluation.setting import Setting
from flamingo_jax.evaluation.task import OPEN_ENDED, Task, make
from flamingo_jax.files import Path, as_path, write_whole
from flamingo_jax.inference import pretrained
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.locks import alone_in
from flamingo_jax.parallel import processes
from flamingo_jax.parallel.mesh import local_mesh

# Fields that change no answer and may differ on resuming.
FREE = ('batch_size', 'mesh', 'pooled', 'published', 'write_prompts')


@alone_in('workdir')
def evaluate(
    config: ConfigDict, checkpoint: str | Path, workdir: str | Path, lm: str | Path = '', dtype: str = ''
) -> list[Row]:
    """Runs every task of a config, writes the reports and prints the table.

    Args:
      lm, dtype: as for `flamingo_jax.load`.

    Raises:
      FileNotFoundError, ValueError: bad input. Raised before any episode is run.
    """
    start = time.time()
    checks.check_config(config)
    if config.published:
        results_file.read(config.published)
    model = pretrained.load(checkpoint, local_mesh(dict(config.mesh)), dtype=dtype, lm=lm)
    model = model.at(config.image_size) if config.image_size else model
    evaluated = _evaluated(config, checkpoint, model)
    answered.refuse_another(workdir, evaluated)
    pools = Pools(model, config, as_path(workdir) / 'pooled')
    checks.refuse_features_of_benchmarks(config)
    tasks = [make(name, fields, pools) for name, fields in config.tasks.to_dict().items()]
    settings = [
        Setting.of(config, task, shots, support, answers)
        for task in tasks
        for support, answers, shots in itertools.product(task.support, task.answers, task.shots)
    ]
    kept = Answered(answered.identity_of(checkpoint, model), workdir)
    processes.wait_for_all('read the answers')
    seeds = range(config.seed, config.seed + config.seeds)
    for seed in seeds:
        checks.refuse_long_prompts([dataclasses.replace(setting, seed=seed) for setting in settings], model)
    checks.say_what_is_cut(settings, model)
    pools.encode()
    finish = answered.begin(workdir, evaluated)
    if len(kept):
        processes.say(f'{len(kept)} answers are in {workdir} already. What they answer is not asked again.')
    rows, examples = [], []
    questions = sum(setting.questions for setting in settings) * len(seeds)
    with tqdm(total=questions, unit=' questions', disable=jax.process_index() > 0) as progress:
        for setting, seed in itertools.product(settings, seeds):
            setting = dataclasses.replace(setting, seed=seed)
            progress.set_postfix_str(str(setting))
            if same := _same(setting, rows):
                rows.append(dataclasses.replace(same, support=setting.support))
                progress.update(setting.questions)
                continue
            row, shown = measure(setting, model, config.batch_size, config.examples, kept, progress.update)
            if jax.process_index() == 0:
                records.write_results(workdir, setting.task, row)
                if config.write_prompts:
                    records.write_prompts(workdir, setting, model, row, kept)
            rows.append(row)
            examples += shown
    if jax.process_index() == 0:
        about = _about(config, checkpoint, model, tasks, pools, seconds=round(time.time() - start))
        # Beside the rows, which two machines share to the last bit.
        about['seconds_a_query'] = {
            '; '.join(str(getattr(row, key)) for key in report.SETTING): row.seconds for row in rows
        }
        more = paired.table(rows) + curves.table(rows)
        more += results_file.beside(results_file.of_rows(rows), config.published) if config.published else ''
        written = [*report.write(workdir, rows, examples, about, more), write_curves(workdir, rows)]
        written += results_file.write(workdir, rows)
        finish()
        print(report.table(rows) + more + report.by_type(rows))
        print(*filter(None, written), sep='\n')
    processes.wait_for_all('the report is written')
    return rows


def measure(
    setting: Setting,
    model: Pretrained,
    batch_size: int = 16,
    examples: int = 6,
    kept: Answered | None = None,
    progress: Callable[[int], Any] = lambda _: None,
) -> tuple[Row, list[Example]]:
    """The scores of one setting, and some examples. Every process returns the same.

    A task without published answers has no scores, and no controls.

    Args:
      batch_size: prompts at a time in each process.
      examples: the number of right answers to return, and of wrong ones.
      kept: the answers that are kept; None keeps none.
      progress: called with the number of questions that were answered: an episode has one for each control.
    """
    episodes, kept, given = setting.episodes(), Answered() if kept is None else kept, {}
    seconds = None
    read = setting.task.read_answer if setting.answers == OPEN_ENDED else lambda answer: answer
    for name in setting.controls:
        control = setting.control(name, model, episodes)
        begin, before = time.perf_counter(), len(kept)
        answers = ask(control, setting.answering, batch_size, kept, progress)
        if name == 'model' and len(kept) > before:
            seconds = (time.perf_counter() - begin) / (len(kept) - before)
        given[name] = {e.id: read(answer) for e, answer in zip(control.episodes, answers, strict=True)}
    row, shown = score(setting, episodes, given, examples)
    tokens = float(np.mean(lengths_of(model, episodes, frames)))
    return dataclasses.replace(row, tokens=tokens, seconds=seconds), shown


def write_curves(workdir: str | Path, rows: Sequence[Row]) -> Path | None:
    """Draws the scores over shots into `curves.png`; None without Matplotlib, or without several numbers of shots."""
    file = as_path(workdir) / 'curves.png'
    drawn = curves.chart(rows) if importlib.util.find_spec('matplotlib') else None
    if drawn is None:
        file.unlink(missing_ok=True)  # Of an earlier evaluation.
        return None
    return write_whole(file, drawn)


def _same(setting: Setting, rows: Sequence[Row]) -> Row | None:
    """The row of another support that asks the same as a setting without examples.

    All kinds of support give the same prompts then; but by CLIP, there may be some examples without images.
    """
    here = (setting.task.name, 0, setting.answers, setting.seed, setting.support == BY_CLIP)
    asked = ((row, (row.task, row.shots, row.answers, row.seed, row.support == BY_CLIP)) for row in rows)
    return None if setting.shots else next((row for row, there in asked if there == here), None)


def _evaluated(config: ConfigDict, checkpoint: str | Path, model: Pretrained) -> dict[str, Any]:
    """What is evaluated, and how: an evaluation that was stopped goes on if it is the same."""
    asked = {key: value for key, value in config.to_dict().items() if key not in FREE}
    of_model = dict(checkpoint=str(checkpoint), step=model.step, checksums=model.checksums, digest=model.digest)
    return of_model | dict(config=asked)


def _about(
    config: ConfigDict, checkpoint: str | Path, model: Pretrained, tasks: Sequence[Task], pools: Pools, seconds: int
) -> dict[str, Any]:
    """How the scores were obtained, for report.json."""
    return dict(
        checkpoint=str(checkpoint),
        step=model.step,
        # Of the trees that were read from bundles, and of what the run trained.
        checksums=model.checksums | (dict(clip=pools.clip.checksum) if config.clip else {}),
        digest=model.digest,
        annotations={task.name: task.annotations for task in tasks},
        left_out={task.name: task.left_out for task in tasks if task.left_out},
        dtype=model.model.quantised.dtype if model.model.quantised else str(model.model.dtype),
        config=config.to_dict(),
        seconds=seconds,
        machine=f'{jax.devices()[0].device_kind}, {jax.device_count()} device(s), '
        f'{platform.processor() or platform.machine()}',
        jax=jax.__version__,
        flamingo_jax=__version__,
    )
