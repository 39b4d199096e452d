"""How far the probabilities of a model's answers can be believed; with --fit, the temperature at which they can.

    python -m flamingo_jax.calibrate --config=experiments/evaluate/NAME.py --checkpoint=BUNDLE --workdir=DIR [--fit]

The config is an evaluation's. Its open-ended tasks are asked at every setting; --config.episodes=N asks N questions of
each. --fit keeps the temperature in the bundle's config.json, where `Pretrained.probabilities`, the server and the page
find it. Without it, the bundle's own temperature is compared with 1. Fit on other questions than those reported.

Written to the workdir: calibration.txt, the table; calibration.png, its chart (`pip install -e '.[plots]'`);
answers.npz, the probabilities and whether each answer was right.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', None, 'A bundle, or the workdir of a training run.', required=True)
    flags.DEFINE_string('lm', '', 'Bundle of the language model, if the checkpoint is a bundle without one.')
    flags.DEFINE_string('workdir', None, 'Folder for the results.', required=True)
    flags.DEFINE_bool('fit', False, 'Choose the temperature, and keep it in the bundle.')
    commands.define_dtype()
    commands.start(__doc__, config=True)

import importlib.util
import io
import itertools

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from flamingo_jax.checkpoints import bundle
from flamingo_jax.errors import UserError
from flamingo_jax.evaluation import calibration, checks
from flamingo_jax.evaluation.calibration import TEMPERATURES, Answered
from flamingo_jax.evaluation.pools import Pools
from flamingo_jax.evaluation.setting import Setting
from flamingo_jax.evaluation.task import OPEN_ENDED, make
from flamingo_jax.files import Path, as_path, write_whole
from flamingo_jax.inference import pretrained
from flamingo_jax.parallel.mesh import local_mesh


def calibrate(
    config: ConfigDict,
    checkpoint: str | Path,
    workdir: str | Path,
    lm: str | Path = '',
    dtype: str = '',
    fit: bool = False,
) -> float:
    """Asks the open-ended tasks of an evaluation's config, writes the table, and returns the model's temperature.

    Args:
      lm, dtype: as for `flamingo_jax.load`.
      fit: whether to choose the temperature, and to keep it in the bundle.

    Raises:
      FileNotFoundError, ValueError: bad input, such as a run to keep a temperature in. Raised before anything is asked.
    """
    checks.check_config(config)
    if fit:
        bundle.read(checkpoint, lm)  # A run keeps no temperature: it is trained further.
    model = pretrained.load(checkpoint, local_mesh(dict(config.mesh)), dtype=dtype, lm=lm)
    model, out = model.at(config.image_size) if config.image_size else model, as_path(workdir)
    pools = Pools(model, config, out / 'pooled')
    tasks = [make(name, fields, pools) for name, fields in config.tasks.to_dict().items()]
    settings = [
        Setting.of(config, task, shots, support, OPEN_ENDED)
        for task in tasks
        if OPEN_ENDED in task.answers
        for support, shots in itertools.product(task.support, task.shots)
    ]
    if not settings:
        raise UserError(
            f'No task of the config has {OPEN_ENDED!r} answers. Set --config.tasks.NAME.answers={OPEN_ENDED}.'
        )
    checks.refuse_long_prompts(settings, model)
    pools.encode()
    asked = TEMPERATURES if fit else tuple(dict.fromkeys((1.0, model.temperature)))
    number = sum(setting.task.number(setting.number) for setting in settings)
    with tqdm(total=number, unit=' questions') as progress:
        answered = calibration.ask(settings, model, asked, config.batch_size, progress.update)
    best = calibration.fit(answered) if fit else len(asked) - 1
    shown = list(dict.fromkeys((asked.index(1.0), best)))
    _report(out, Answered(answered.probabilities[shown], answered.marks), [asked[i] for i in shown])
    if fit:
        bundle.set_temperature(checkpoint, round(asked[best], 3))
    return asked[best]


def _report(out: Path, answered: Answered, temperatures: list[float]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    table, arrays = calibration.table(answered, temperatures), io.BytesIO()
    np.savez(arrays, temperatures=temperatures, **answered._asdict())
    files = [write_whole(out / 'calibration.txt', table.encode()), write_whole(out / 'answers.npz', arrays.getvalue())]
    if importlib.util.find_spec('matplotlib'):
        files.append(write_whole(out / 'calibration.png', calibration.chart(answered, temperatures)))
    print(table, *files, sep='\n')


def main() -> None:
    """Runs what the flags describe."""
    f = flags.FLAGS
    commands.refuse_config_of('evaluation', f.config)
    calibrate(f.config, f.checkpoint, f.workdir, f.lm, f.dtype, f.fit)


if __name__ == '__main__':
    main()
