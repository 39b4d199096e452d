"""The progress of a run: losses, speed and share of the device's peak; and on request a trace of some steps."""

import collections
import contextlib
import itertools
import math
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from flamingo_jax.errors import DivergedError, UserError
from flamingo_jax.files import Path, as_path, in_bucket, upload
from flamingo_jax.inputs.rows import COUNTS
from flamingo_jax.parallel import processes
from flamingo_jax.training.writers import Writer

REMEDY = (
    'The newest checkpoint is finite, and the same command resumes from it. Lower config.optimizer.learning_rate, '
    'raise '
    'config.optimizer.warmup_steps, or look at the data of these steps. If the first steps after the checkpoint fail '
    'again, move it away: the run then resumes from the one before.'
)


WINDOW = 100  # Batches over which `config.max_unreadable` is a share.


class Skipped(NamedTuple):
    """How many steps were skipped: their loss or gradient was not finite, or nothing had a weight."""

    total: int = 0
    in_a_row: int = 0  # Up to the newest step.


class Operations(NamedTuple):
    """Floating-point operations of a run, of which its MFU is a share. `planning/flops.py` counts them."""

    step: float  # Of one step of all data sets, on all places, over all devices.
    useful: Callable[[str, dict[str, float]], float]  # (data set, counts of its steps) -> those on no padding.
    peak: float | None  # Most per second of one device; None if it is unknown.


class Damage:
    """The share of damaged images in the newest batches of each data set."""

    def __init__(self, bound: float):
        """bound: the largest share that is tolerated."""
        self._bound = bound
        self._newest = collections.defaultdict(lambda: collections.deque(maxlen=WINDOW))

    def add(self, values: dict[str, float], names: Sequence[str]) -> None:
        """Counts the images of a step. UserError if a data set has a full window, and its share is above the bound."""
        for name in names:
            if f'{name}/unreadable' in values:
                self._newest[name].append((values[f'{name}/unreadable'], values[f'{name}/images']))
        for name, share in self.above().items():
            if len(self._newest[name]) == WINDOW:
                raise UserError(
                    f'Of the images of the data set {name!r}, {share:.0%} in the last {WINDOW} batches are damaged, '
                    f'more than config.max_unreadable={self._bound}. Build the data set again, or raise the bound. '
                    'The newest checkpoint is from before; the same command resumes from it.'
                )

    def above(self) -> dict[str, float]:
        """The share of each data set for which it is above the bound, also of a window that is not full yet."""
        counts = {name: [sum(each) for each in zip(*newest, strict=True)] for name, newest in self._newest.items()}
        shares = {name: damaged / max(damaged + good, 1) for name, (damaged, good) in counts.items()}
        return {name: share for name, share in shares.items() if share > self._bound}


class Progress:
    """Process 0 gives metrics, averaged over `log_every` steps, to its writers and to a progress bar.

    As a context it closes both at the end.

    Attributes:
      last: the newest metrics.
      skipped: the skipped steps of the whole run, up to the newest step whose metrics were read.
    """

    def __init__(
        self,
        config: ConfigDict,
        first: int,
        writers: Sequence[Writer],
        flops: float,
        useful: Callable[[str, dict[str, float]], float],
        peak: float | None,
        skipped: Skipped,
        began: float,
    ):
        """Shows the bar.

        Args:
          first: the step before the first.
          writers: of process 0; none in the others.
          flops: operations of a step on all places, over all devices; the mean if data sets take turns.
          useful: (data set, counts of its steps) -> the operations on what was no padding (`planning/flops.py`).
          peak: most operations per second of all devices together; None if unknown, which leaves MFU out.
          skipped: the skipped steps up to `first`.
          began: `time.perf_counter` when the command began.
        """
        chief, self._writers = jax.process_index() == 0, writers
        self._bar = tqdm(total=config.steps, initial=first, unit=' steps', disable=not chief, dynamic_ncols=True)
        self._config, self._pending, self._kept = config, None, []
        self._flops, self._useful, self._peak, self.skipped = flops, useful, peak, skipped
        self._since, self.last = time.perf_counter(), {}
        self._began, self._trained, self._best = began, 0, math.inf
        self._said, self._validated = '', {}
        self._damage = Damage(config.max_unreadable)

    @property
    def in_doubt(self) -> bool:
        """Whether the newest steps may have learnt nothing: they were skipped, or too many images are damaged.

        What is saved now must not replace an older checkpoint.
        """
        return self.skipped.in_a_row > 0 or bool(self._damage.above())

    def add(self, step: int, metrics: dict[str, jax.Array], waited: float) -> None:
        """Takes the metrics of a step and reads those of the step before.

        Args:
          waited: seconds that the step waited for its batch.

        Raises:
          DivergedError: `config.max_skipped_steps` steps in a row, up to the one before, were skipped.
          UserError: too many images are damaged (`config.max_unreadable`).
        """
        previous, self._pending = self._pending, (step, metrics, waited)
        if previous is not None:
            self._read(*previous)

    def validate(self, step: int, validation: Callable[[], dict[str, float]]) -> None:
        """Runs a validation after a step and shows its results.

        Its time does not count in the speed. Errors as for `add`.
        """
        self.flush()
        begin = time.perf_counter()
        self._validated = validation()
        self._since += time.perf_counter() - begin
        self.last = self.last | self._validated
        self._show()
        if self._validated:  # None if it was broken off.
            self._write(step, self._validated)

    def _show(self) -> None:
        losses = ''.join(
            f', {name.removesuffix("/loss")} {value:.3f}'
            for name, value in self._validated.items()
            if name.endswith('/loss')
        )
        self._bar.set_postfix_str(self._said + losses)

    def flush(self) -> None:
        """Reads pending metrics; errors as for `add`."""
        if self._pending is not None:
            self._read(*self._pending)
            self._pending = None

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.ExitStack() as ends:  # One that fails keeps no other from its end.
            ends.callback(self._bar.close)
            for writer in self._writers:
                ends.callback(writer.close)
            if kind is None:
                self.flush()

    def _read(self, step: int, metrics: dict[str, jax.Array], waited: float) -> None:
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}  # All in one go.
        self._damage.add(values, list(self._config.datasets))
        skipped = int(values.pop('skipped'))
        self.skipped = Skipped(self.skipped.total + skipped, (self.skipped.in_a_row + 1) * skipped)
        if self.skipped.in_a_row >= self._config.max_skipped_steps:
            above = {name: f'{share:.0%}' for name, share in self._damage.above().items()}
            damaged = f' Of the images of the newest batches, so many are damaged: {above}.' if above else ''
            raise DivergedError(
                f'The loss or the gradient was not finite, or nothing had a weight, in {self.skipped.in_a_row} steps '
                f'in a row, the last of them step {step} (loss {values["loss"]}, grad_norm {values["grad_norm"]}).'
                f'{damaged} {REMEDY}'
            )
        self._bar.update(1)
        self._kept.append(values | dict(data_wait=waited, skipped=skipped))
        if step % self._config.log_every and step != self._config.steps:
            return
        n, seconds = len(self._kept), time.perf_counter() - self._since
        # Each data set averages over its own steps, which are not all if data sets take turns.
        every = collections.defaultdict(list)
        for name, value in itertools.chain.from_iterable(kept.items() for kept in self._kept):
            every[name].append(value)
        mean = {name: _mean(each) for name, each in every.items() if name not in ('data_wait', 'skipped')}
        seen = [name for name in self._config.datasets if f'{name}/loss' in every]
        mean['unreadable_images'] = sum(sum(every[f'{name}/unreadable']) for name in seen)
        mean['skipped_steps'] = float(self.skipped.total)
        self._trained += n - sum(every['skipped'])
        self._best = min(self._best, seconds / n)
        # All wait for the process whose data are late. The others may not have told theirs of these steps yet.
        own = {jax.process_index(): sum(every['data_wait']) / n}
        processes.tell('data wait', own[jax.process_index()])
        every_wait = (processes.told('data wait') if jax.process_index() == 0 else {}) | own
        slowest, wait = max(every_wait.items(), key=lambda one: one[1])
        where = f' in process {slowest}' if jax.process_count() > 1 else ''
        mean |= {
            # Share of the time since the start in which steps were trained at the best speed so far. The rest went to
            # the start, compilation, slower steps, waiting for data, skipped steps, validation and checkpoints.
            'speed/goodput': self._trained * self._best / (time.perf_counter() - self._began),
            'speed/seconds_per_step': seconds / n,
            'speed/data_wait_seconds': wait,
            'speed/tokens_per_second': sum(sum(every[f'{name}/tokens']) for name in seen) / seconds,
            'speed/images_per_second': sum(sum(every[f'{name}/images']) for name in seen) / seconds,
        }
        if self._peak:  # Model FLOPs utilisation.
            useful = sum(self._useful(name, {key: sum(every[f'{name}/{key}']) for key in COUNTS}) for name in seen)
            mean['speed/mfu'] = useful / seconds / self._peak
            mean['speed/mfu_with_padding'] = self._flops * n / seconds / self._peak
        self.last, self._kept, self._since = mean | self._validated, [], time.perf_counter()
        accuracy = {name: f'{mean[f"{name}/accuracy"]:.3f}' for name in seen}
        unreadable = (
            f', {mean["unreadable_images"]:.0f} unreadable images left out' if mean['unreadable_images'] else ''
        )
        skipped = f', {self.skipped.total} steps skipped' if self.skipped.total else ''
        self._said = (
            f'loss {mean["loss"]:.3f}, right {accuracy}, {mean["speed/tokens_per_second"]:,.0f} tokens/s, '
            f'{mean["speed/images_per_second"]:,.0f} images/s, '
            + (
                f'MFU {mean["speed/mfu"]:.1%} ({mean["speed/mfu_with_padding"]:.1%} with padding), '
                if self._peak
                else ''
            )
            + f'data wait {mean["speed/data_wait_seconds"]:.3f} s{where}{unreadable}{skipped}'
        )
        self._show()
        self._write(step, mean)

    def _write(self, step: int, scalars: dict[str, float]) -> None:
        for writer in self._writers:
            writer.write(step, scalars)


def _mean(values: list[float]) -> float:
    """The mean of the finite values, so that a skipped step does not hide the others. NaN if none is finite."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


class Profile:
    """A jax.profiler trace of some steps of process 0, for TensorBoard and Perfetto, in WORKDIR/plugins/profile/."""

    def __init__(self, steps: tuple[int, ...], workdir: str | Path):
        """Starts nothing yet.

        Args:
          steps: the first and the last step to trace; () for none.

        Raises:
          ValueError: neither of the two.
        """
        if steps and (len(steps) != 2 or not 1 <= steps[0] <= steps[1]):
            raise UserError(f'config.profile is {steps}. It must be (first step, last step), or () for none.')
        self._steps: Sequence[int] = steps if jax.process_index() == 0 else ()
        # The profiler writes to this machine only.
        self._workdir, self._folder, self._running = workdir, workdir, False
        if self._steps and in_bucket(workdir):
            self._folder = tempfile.mkdtemp()

    def step(self, step: int) -> contextlib.AbstractContextManager:
        """Marks a step in the trace. Before the first step it starts the trace."""
        if self._steps and step == self._steps[0]:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True
        return jax.profiler.StepTraceAnnotation('train', step_num=step)

    def stop_after(self, step: int, results: dict[str, jax.Array]) -> None:
        """Ends the trace after its last step, once that step's results are ready."""
        if self._running and step >= self._steps[1]:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Ends a trace that is still running."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
            if self._folder != self._workdir:
                upload(pathlib.Path(self._folder), as_path(self._workdir))
                shutil.rmtree(self._folder)
