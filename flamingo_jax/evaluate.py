"""Few-shot evaluation of a checkpoint, with baselines for every score.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/NAME.py --checkpoint=BUNDLE_OR_WORKDIR --workdir=DIR

All keys of a config, with meanings and defaults, are in flamingo_jax/evaluation/config.py, those of a task in
flamingo_jax/evaluation/task.py. --config.KEY=VALUE changes one.

The baselines use the same episodes: the model with images shuffled among prompts, the model without images, nearest
centroid and nearest neighbour on the frozen features, and chance.

--config.seeds=3 repeats each setting with other examples, and shows how far the scores lie apart. To compare two
checkpoints on the same queries: python -m flamingo_jax.compare WORKDIR_A WORKDIR_B

To continue an evaluation that was stopped, run the same command again: no question is asked twice. Answers are kept in
DIR/answers by checkpoint and prompt, so more tasks, shots or seeds cost only what is new.

--config.mesh.data=-1 uses all devices of this machine. Several processes, each with the same command and the same
shared workdir, share the questions:

    ... --coordinator=HOST:PORT --processes=4 --process_id=0      (as for flamingo_jax.train)

Mesh, number of processes and batch size do not change an answer, unless two candidates are equally likely up to
rounding.
"""

from absl import flags

from flamingo_jax import commands
from flamingo_jax.errors import UserError

if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', None, 'A bundle, or the workdir of a training run.', required=True)
    flags.DEFINE_string('lm', '', 'Bundle of the language model, if the checkpoint is a bundle without one.')
    flags.DEFINE_string('workdir', None, 'Folder for the reports.', required=True)
    commands.define_dtype()
    commands.define_processes()
    commands.start(__doc__, config=True)

import dataclasses
import hashlib
import itertools
import json
import math
import platform
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from flamingo_jax import __version__, memory
from flamingo_jax.evaluation import answered, report
from flamingo_jax.evaluation.answers import Ranked
from flamingo_jax.evaluation.benchmark import Benchmark
from flamingo_jax.evaluation.metrics import exact
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.rices import BY_CLIP, RICES
from flamingo_jax.evaluation.setting import digests, frames, lengths_of, measure, prompt_of, way, ways
from flamingo_jax.evaluation.task import OPEN_ENDED, Task, make
from flamingo_jax.files import Path, as_path, write_whole
from flamingo_jax.inference import pretrained
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.locks import alone_in
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import processes

Setting = tuple[Task, int, str, str]  # Task, shots, support, answers.
FREE = ('batch_size', 'mesh', 'pooled', 'write_prompts')  # Fields that change no answer and may differ on resuming.


@alone_in('workdir')
def evaluate(
    config: ConfigDict, checkpoint: str | Path, workdir: str | Path, lm: str | Path = '', dtype: str = ''
) -> list[report.Row]:
    """Runs every task of a config, writes the reports and prints the table.

    Args:
      lm, dtype: as for `flamingo_jax.load`.

    Raises:
      FileNotFoundError, ValueError: bad input. Raised before any episode is run.
    """
    start = time.time()
    _refuse_at_once(config)
    model = pretrained.load(checkpoint, local_mesh(config.mesh), dtype=dtype, lm=lm)
    model = model.at(config.image_size) if config.image_size else model
    asked = {key: value for key, value in config.to_dict().items() if key not in FREE}
    evaluated = dict(checkpoint=str(checkpoint), step=model.step, checksums=model.checksums, digest=model.digest)
    evaluated |= dict(config=asked)
    answered.refuse_another(workdir, evaluated)
    pools = Pools(model, config, as_path(workdir) / 'pooled')
    _refuse_features_of_benchmarks(config)
    every = [make(name, fields, pools) for name, fields in config.tasks.to_dict().items()]
    settings = [
        (task, shots, support, answers)
        for task in every
        for support, answers, shots in itertools.product(task.support, task.answers, task.shots)
    ]
    kept = answered.Answered(answering_model(checkpoint, model), workdir)
    processes.wait_for_all('read the answers')
    by_seed = [_with_seed(config, config.seed + i) for i in range(config.seeds)]
    for one in by_seed:
        _refuse_long_prompts(one, model, settings)
    _say_what_is_cut(config, model, settings)
    pools.encode()
    finish = answered.begin(workdir, evaluated)
    if len(kept):
        processes.say(f'{len(kept)} answers are in {workdir} already. What they answer is not asked again.')
    rows, examples = [], []
    asked_once = sum(task.number(config.episodes) * len(ways(task, answers)) for task, *_, answers in settings)
    with tqdm(total=asked_once * config.seeds, unit=' questions', disable=jax.process_index() > 0) as progress:
        for (task, shots, support, answers), one in itertools.product(settings, by_seed):
            progress.set_postfix_str(f'{task.name}, {shots} shots, {support}, {answers}')
            # Without examples, all kinds of support give the same prompts; by CLIP, there may be some without images.
            here, by_clip = (task.name, answers, one.seed), support == BY_CLIP
            same = [row for row in rows if row.shots == shots == 0 and (row.task, row.answers, row.seed) == here]
            same = [row for row in same if (row.support == BY_CLIP) == by_clip]
            if same:
                found = dataclasses.replace(same[0], support=support), []
                progress.update(task.number(config.episodes) * len(ways(task, answers)))
            else:
                how = dict(shots=shots, support=support, answers=answers)
                found = measure(one, model, task, **how, progress=progress.update, answered=kept)
                if jax.process_index() == 0:
                    _write_results(workdir, task, found[0])
                    if config.write_prompts:
                        _write_prompts(workdir, one, model, task=task, row=found[0], kept=kept)
            rows.append(found[0])
            examples += found[1]
    if jax.process_index() == 0:
        about = dict(
            checkpoint=str(checkpoint),
            step=model.step,
            # Of the trees that were read from bundles, and of what the run trained.
            checksums=model.checksums | (dict(clip=pools.clip.checksum) if config.clip else {}),
            digest=model.digest,
            annotations={task.name: task.annotations for task in every},
            left_out={task.name: task.left_out for task in every if task.left_out},
            dtype=model.model.quantised.dtype if model.model.quantised else str(model.model.dtype),
            config=config.to_dict(),
            seconds=round(time.time() - start),
            machine=f'{jax.devices()[0].device_kind}, {jax.device_count()} device(s), '
            f'{platform.processor() or platform.machine()}',
            jax=jax.__version__,
            flamingo_jax=__version__,
        )
        written = report.write(workdir, rows, examples, about)
        finish()
        print(report.table(rows) + report.by_type(rows))
        print(*filter(None, written), sep='\n')
    processes.wait_for_all('the report is written')
    return rows


def _refuse_at_once(config: ConfigDict) -> None:
    """ValueError if a number makes no sense, or if the files of two tasks would have the same names."""
    for name in ('seeds', 'episodes', 'frames', 'batch_size', 'max_new_tokens', 'num_beams'):
        if config[name] < 1:
            raise UserError(f'config.{name} is {config[name]}. It must be 1 or more.')
    if not math.isfinite(config.length_penalty):
        raise UserError(f'config.length_penalty is {config.length_penalty}. It must be a finite number.')
    titles = [fields.get('title') or name for name, fields in config.tasks.to_dict().items()]
    titles.sort(key=_in_a_file_name)
    for one, other in itertools.pairwise(titles):
        if _in_a_file_name(one) == _in_a_file_name(other):
            raise UserError(
                f'Two tasks have the titles {one!r} and {other!r}, so that one would replace the files of the other. '
                'Give one of them another title.'
            )


def answering_model(checkpoint: str | Path, model: Pretrained) -> list[Any]:
    """All that tells the model from others, for its answers."""
    trained = model.digest or [str(checkpoint), model.step]  # Without checksums, a run is told by its place.
    trained = None if model.step is None else trained
    tokenizer = hashlib.sha256(model.tokenizer.model).hexdigest()
    return [__version__, model.checksums, trained, tokenizer, dataclasses.asdict(model.model)]


def _file(workdir: str | Path, folder: str, row: report.Row, suffix: str) -> Path:
    """A file of one row, in a folder that exists."""
    name = f'{row.task}_{row.answers}_{row.support}_{row.shots}_shots_seed_{row.seed}'
    path = as_path(workdir) / folder / (_in_a_file_name(name) + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _in_a_file_name(text: str) -> str:
    return re.sub('[^A-Za-z0-9_-]+', '_', text)


def _write_prompts(
    workdir: str | Path, config: ConfigDict, model: Pretrained, task: Task, row: report.Row, kept: answered.Answered
) -> None:
    """Writes every prompt of a row as it was sent, those of the controls too, with the answer.

    The model's own answers have their scores.
    """
    lines = []
    episodes = list(task.episodes(config.episodes, row.shots, row.support, answers=row.answers, seed=config.seed))
    answering = task.answering(row.answers, config.max_new_tokens, config.num_beams, config.length_penalty)
    for name in ways(task, row.answers):
        who, asked, shown = way(name, model, episodes, config.seed)
        seen = (lambda part: dict(image=part.key)) if shown is frames else shown
        for episode, digest in zip(asked, digests(who, answering, asked, shown, kept), strict=True):
            line = dict(way=name, id=episode.id, prompt=prompt_of(episode, seen, who.tokenizer))
            line |= dict(answer=kept.get(digest), truth=episode.truth)
            if name == 'model':
                line |= {key: row.queries[episode.id][key] for key in ('answer', 'score')}
            lines.append(json.dumps(line, ensure_ascii=False, default=str) + '\n')
    write_whole(_file(workdir, 'prompts', row, '.jsonl'), ''.join(lines).encode())


def _write_results(workdir: str | Path, task: Task, row: report.Row) -> None:
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


def _with_seed(config: ConfigDict, seed: int) -> ConfigDict:
    copy = config.copy_and_resolve_references()
    copy.seed = seed
    return copy


def local_mesh(shape: Any) -> jax.sharding.Mesh | None:
    """A mesh of this process's devices; None for a single device.

    Each process has a whole model, since it answers its own questions.

    shape: `data`, `fsdp` and `tensor`, of which one may be -1.

    ValueError if there are too few devices.
    """
    shape, devices = dict(shape), jax.local_devices()
    if -1 not in shape.values():
        number = math.prod(shape.values())
        if number == 1:
            return None
        devices = devices[:number] if 0 < number <= len(devices) else devices
    mesh = meshes.make_mesh(**shape, devices=devices)
    return mesh if mesh.size > 1 else None


def _refuse_long_prompts(config: ConfigDict, model: Pretrained, settings: Sequence[Setting]) -> None:
    """ValueError if a prompt with its answer exceeds the context. All episodes are checked before any is run."""
    if model.config.contrastive is not None:  # Two towers read no prompts.
        return
    context, too_long = model.config.lm.context, []
    # The features that RICES compares are computed for the first prompt that needs them.
    settings = sorted(settings, key=lambda setting: setting[2] in (RICES, BY_CLIP))
    for task, shots, support, answers in tqdm(settings, unit=' settings', desc='lengths of prompts', leave=False):
        if too_long and support in (RICES, BY_CLIP):  # Enough is known to refuse.
            break
        tokens, answer = _longest(config, model, task, shots=shots, support=support, answers=answers)
        if tokens + answer <= context:
            continue
        # The largest number that fits, by bisection: prompts grow with the shots.
        fits, too_many = 0, shots
        while too_many - fits > 1:
            half = (fits + too_many) // 2
            if sum(_longest(config, model, task, shots=half, support=support, answers=answers)) <= context:
                fits = half
            else:
                too_many = half
        too_long.append(
            f'Task {task.name}, {shots} shots, {support}, {answers}: a prompt of {tokens} tokens and {answer} for the '
            f'answer exceed the context of {context} tokens. '
            + (
                f'At most {fits} shots fit.'
                if fits
                else 'Not even 1 shot fits.'
                if shots
                else 'There are no shots to leave out.'
            )
        )
    if too_long:
        remedy = 'Give fewer shots in the config, or evaluate a model with a longer context.'
        raise UserError('\n'.join([*too_long, remedy]))


def _longest(
    config: ConfigDict, model: Pretrained, task: Task, shots: int, support: str, answers: str
) -> tuple[int, int]:
    """The most tokens of a prompt, and of an answer, in the way of asking that needs the most."""
    answering = task.answering(answers, config.max_new_tokens, config.num_beams, config.length_penalty)
    episodes = list(task.episodes(config.episodes, shots, support, answers=answers, seed=config.seed))
    most = []
    for name in ways(task, answers):
        if name in ('shuffled images', 'text only'):  # Their prompts are those of the model, or shorter.
            continue
        who, asked, shown = way(name, model, episodes, config.seed)
        rooms: dict[tuple[str, ...], int] = {}  # Many episodes have the same candidates.
        for episode in asked:
            key = (*episode.candidates, *map(str, episode.written)) if isinstance(answering, Ranked) else ()
            if key not in rooms:
                end = prompt_of(episode, None, who.tokenizer)[-1:]
                rooms[key] = answering.room(who, end, episode)
        most.append((max(lengths_of(who, asked, shown)), max(rooms.values())))
    return max(most, key=sum)


def _refuse_features_of_benchmarks(config: ConfigDict) -> None:
    """ValueError if `config.features`, which are of an image set, would stand beside a benchmark's own images."""
    own = [name for name, task in config.tasks.items() if issubclass(task.asks, Benchmark)]
    if config.features and own:
        raise UserError(
            f"config.features is {config.features!r}, but {', '.join(own)} ask about a benchmark's own images, which "
            "have none. Set it to '', or ask these tasks in another evaluation."
        )


def _say_what_is_cut(config: ConfigDict, model: Pretrained, settings: Sequence[Setting]) -> None:
    """Says which right answers have more tokens than may be written: none of them can match exactly."""
    open_ended = [one for one in settings if one[-1] == OPEN_ENDED and one[0].metric is exact.score]
    first = {task.name: (task, *how) for task, *how in reversed(open_ended)}  # All of a task have the same answers.
    for task, shots, support, answers in first.values():
        how: Any = task.answering(answers, config.max_new_tokens, config.num_beams, config.length_penalty)
        most = how.max_new_tokens  # It is `Generated`, since the answer is open-ended.
        episodes = task.episodes(config.episodes, shots, support, answers=answers, seed=config.seed)
        truths = [episode.truth for episode in episodes if episode.truth]
        tokens = {truth: len(model.tokenizer.encode(model.tokenizer.literal(f' {truth}'))) for truth in set(truths)}
        if cut := [truth for truth in truths if tokens[truth] > most]:
            longest = max(cut, key=tokens.__getitem__)
            processes.say(
                f'Task {task.name}: {len(cut)} of {len(truths)} right answers have more than max_new_tokens={most} '
                f'tokens, so that nothing can match them. The longest is {longest!r}. '
                f'Set --config.max_new_tokens={tokens[longest]}.'
            )


def main() -> None:
    """Runs the evaluation that the flags describe."""
    memory.keep_freed()
    f = flags.FLAGS
    commands.refuse_config_of('evaluation', f.config)
    processes.join(f.coordinator, f.processes, f.process_id)
    evaluate(f.config, f.checkpoint, f.workdir, lm=f.lm, dtype=f.dtype)


if __name__ == '__main__':
    main()
