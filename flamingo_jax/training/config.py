"""The base config of a training run: every key and its meaning. An experiment changes some of them."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.model.config import SIZES, FlamingoConfig
from flamingo_jax.model.quantised import DTYPES, Quantisation
from flamingo_jax.ranges import require
from flamingo_jax.training.objectives.noise import NoiseConfig
from flamingo_jax.training.optimizer import OptimizerConfig

AT_LEAST_1 = ('steps', 'micro_batches', 'log_every', 'checkpoint_every', 'keep_checkpoints', 'validate_every')
AT_LEAST_1 += ('validation_batches', 'max_skipped_steps')


def base() -> ConfigDict:
    """The base config. Values are the paper's where it gives them."""
    c = ConfigDict()
    c.seed = 0
    c.steps = 500_000
    # Bundle of a whole model to fine-tune. It gives the config, the tokenizer, the frozen trees, and the initial
    # values of the trained trees. The fields of the next paragraph must then not be set, except `image_size`, and `lm`,
    # `vision` and `resampler`: bundles of the same shape (and tokenizer), whose trees take the place of its own.
    c.start = ''
    # The model. `lm` (with its tokenizer) and `vision` can be read from bundles.
    c.lm = ''  # Bundle of the pretrained language model; '' trains one from scratch.
    c.vision = ''  # Bundle of the vision trunk; '' for text alone.
    c.resampler = ''  # Bundle whose resampler was pretrained on that trunk (model/contrastive.py); '' is a new one.
    c.tokenizer = ''  # SentencePiece file, if `lm` is ''.
    # Height and width of the images in pixels; 0 is that of the trunk's bundle, or of `start`. (Paper: the trunk
    # learns at 288, the Flamingo at 320, and fine-tuning is at 480.)
    c.image_size = 0
    c.image_tag = 'text'  # '<image>' is 'text' (paper) or a 'token' with a learnt embedding (OpenFlamingo).
    c.model = ConfigDict(FlamingoConfig().to_json())  # lm, resampler, xattn: dicts of their config's fields, or None.
    # The component trees to train; 'vision' trains the trunk end to end, from pixels.
    c.trained = ('resampler', 'xattn', 'extra_tokens')
    # LoRA on a frozen language model (model/lora.py). Its tree is trained together with those above. A rank of 0 is
    # none.
    c.lora = ConfigDict(dict(rank=0, alpha=16.0, targets=('query', 'value')))
    c.datasets = ConfigDict()  # name -> dataset(KIND, ...). The kinds are in inputs/sources/ and tasks/source.py.
    c.noise = ConfigDict(dataclasses.asdict(NoiseConfig()))
    c.optimizer = ConfigDict(dataclasses.asdict(OptimizerConfig()))
    # False: each step accumulates the gradients of all data sets (paper). True: each step uses one data set, in turn
    # by name (ablation, table 3 row ii); n data sets then take n times the steps for the same data.
    c.round_robin = False
    # Number of parts of a batch over which gradients are accumulated. A data set may have a number of its own.
    c.micro_batches = 1
    c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))
    # Topology -> machine(...): the mesh on it, which `plan` takes in place of the one above, and what goes with it.
    c.machines = ConfigDict()
    c.machine = ''  # The name in `machines` of the one that trains; '' takes the mesh above.
    c.dtype = ''  # Of computation and frozen parameters; '' is bfloat16 on TPU and GPU, float32 on CPU.
    # What computes attention: 'plain', 'cudnn' (GPU) or 'splash' (TPU); '' is the devices' own (model/attention.py).
    c.attention_kernel = ''
    # Of the frozen language model's matrices (model/quantised.py); '' is `dtype`. 'int8' and 'fp8': half the bytes, and
    # the products of its blocks in that dtype, where chips have twice the peak. 'int4': a quarter of the bytes, and
    # products in `dtype`.
    c.frozen_dtype = ''
    c.remat = ''  # What the backward pass recomputes: '' is nothing; else a name in `REMAT` (model/stack.py).
    c.log_every = 10
    c.checkpoint_every = 1000
    c.keep_checkpoints = 3
    # Every `validate_every` steps and after the last step, the loss of the first batches of each data set's
    # `validation_split` is computed, for the parameters as they are, also where `optimizer.average` averages them. The
    # batches are always the same.
    c.validate_every = 1000
    c.validation_batches = 8
    # True resumes a run although its seed, data sets or noise have changed. Parameters and moments are kept. Each data
    # set continues after the documents already read of it (with another seed, after as many of another order); a new
    # one starts at its beginning.
    c.resume_changed = False
    # A step whose loss or gradient is not finite, or in which nothing has a weight, changes nothing. Training stops
    # after this many such steps in a row.
    c.max_skipped_steps = 10
    # Largest share of a data set's images that may be damaged, over a hundred of its batches. Training stops above it.
    # 1 sets no bound.
    c.max_unreadable = 0.1
    # A run in which no step (the first compiles), batch of the validation or checkpoint ends for so many seconds hangs:
    # a device or another process has stopped. It then says where each thread is, and ends with code 1, so that whatever
    # started it can start it anew. 0 waits forever.
    c.hang_seconds = 1800.0
    c.profile = ()  # (first, last) step to trace for TensorBoard and Perfetto; () for none.
    c.lock()  # A mistyped key is an error.
    for names in (c.datasets, c.machines):
        names.unlock()
    return c


def check(c: ConfigDict) -> None:
    """ValueError for a number that is out of its range, or a dtype that nothing is computed in."""
    require('config', c, 'from 0 to 2^63 - 1', 'seed')
    require('config', c, '0 or more', 'hang_seconds')
    require('config', c, 'from 0 to 1', 'max_unreadable')
    OptimizerConfig(**c.optimizer.to_dict())  # These two check their own.
    NoiseConfig(**c.noise)
    if c.dtype not in ('', 'float32', 'bfloat16'):
        raise UserError(f"config.dtype is {c.dtype!r}. It must be 'float32' or 'bfloat16', or '' for the devices' own.")
    if c.profile and c.profile[0] > c.steps:
        raise UserError(f'config.profile is {c.profile}, but the run ends at step {c.steps}. Give earlier steps.')


def check_loop(c: ConfigDict) -> None:
    """ValueError for a number of the training loop that is below 1, or for a config without data sets."""
    for field in AT_LEAST_1:
        if c[field] < 1:
            raise UserError(f'config.{field} is {c[field]}. It must be 1 or more.')
    if not c.datasets:
        raise UserError('config.datasets is empty. Give at least one data set to train on.')


def lora_fields(c: ConfigDict) -> dict[str, Any] | None:
    """`config.lora` as the model's config takes it; None without LoRA."""
    return c.lora.to_dict() if c.lora.rank else None


def trained_trees(c: ConfigDict) -> tuple[str, ...]:
    """The component trees that a config trains.

    Raises:
      ValueError: the trunk is among them, but a data set reads features that were computed before; or the language
        model is, and LoRA too.
    """
    if c.lora.rank and 'lm' in c.trained:
        raise UserError(
            f"config.trained has 'lm', and config.lora.rank is {c.lora.rank}: LoRA is for a language model that is "
            "frozen. Set config.lora.rank to 0 to train the language model itself, or remove 'lm' from config.trained."
        )
    trained = (*c.trained, *(['lora'] if c.lora.rank else []))
    if 'vision' in trained and (stale := [name for name, data in c.datasets.items() if data.features]):
        raise UserError(
            f"config.trained has 'vision', but the data sets {stale} read features, which were computed with the "
            "trunk before this training. Set their features to '' to read pixels, or remove 'vision'."
        )
    return trained


def quantisation(c: ConfigDict, trained: Sequence[str]) -> Quantisation | None:
    """`config.frozen_dtype` as the model takes it; None if it is not set.

    Raises:
      ValueError: it is not known, or the language model is not frozen, or the noise needs its embeddings.
    """
    if not c.frozen_dtype:
        return None
    if c.frozen_dtype not in DTYPES:
        raise UserError(
            f"config.frozen_dtype is {c.frozen_dtype!r}. Give one of {', '.join(map(repr, DTYPES))}, or '' for "
            'config.dtype.'
        )
    if 'lm' in trained:
        raise UserError(
            f"config.frozen_dtype is {c.frozen_dtype!r}, but config.trained has 'lm'. Only a frozen language model can "
            "be kept in it: set it to '', or train LoRA (config.lora) in place of 'lm'."
        )
    if c.noise.text or c.noise.vocabulary:
        raise UserError(
            'config.noise adds to the embeddings of a language model that is trained. With config.frozen_dtype, set '
            'noise.text and noise.vocabulary to 0.'
        )
    return Quantisation(c.frozen_dtype, inputs=c.frozen_dtype != 'int4')


# Fields of a data set that do not change the training.
NOT_OF_THE_RECIPE = ('workers', 'validation_split', 'micro_batches')


def recipe(c: ConfigDict) -> dict[str, Any]:
    """The part of a config that determines the numbers of a run: config key -> value, as JSON.

    A resumed run must match it.

    The model is not part of it, nor are the fields that may change on resuming: steps, checkpoints, workers, mesh,
    micro-batches.
    """

    def flat(prefix: str, fields: Any) -> dict[str, Any]:
        out = {}
        for field in dataclasses.fields(fields):
            key, value = f'{prefix}.{field.name}', getattr(fields, field.name)
            if dataclasses.is_dataclass(value):
                out |= flat(key, value)
                value = type(value).__name__
            out[key] = value
        return out

    out = dict(seed=c.seed, frozen_dtype=c.frozen_dtype, round_robin=c.round_robin, datasets=sorted(c.datasets))
    for name, data in c.datasets.items():
        of_data = flat(f'datasets.{name}', source_of(data)) | {f'datasets.{name}.kind': data.kind}
        out |= {key: value for key, value in of_data.items() if not key.endswith(NOT_OF_THE_RECIPE)}
    out |= flat('noise', NoiseConfig(**c.noise)) | flat('optimizer', OptimizerConfig(**c.optimizer.to_dict()))
    return json.loads(json.dumps(out, default=lambda value: value.__name__))  # Classes by their names.


def machine(
    data: int,
    fsdp: int,
    tensor: int,
    micro_batches: int | dict[str, int] = 1,
    batch: float = 1.0,
    remat: str | None = None,
) -> ConfigDict:
    """A mesh for `config.machines`, with what is best on it.

    Args:
      micro_batches: of every data set, or data set -> its number.
      batch: multiplies every batch size.
      remat: replaces the config's; None keeps it.
    """
    mesh = dict(data=data, fsdp=fsdp, tensor=tensor)
    return ConfigDict(dict(mesh=mesh, micro_batches=micro_batches, batch=batch, remat=remat))


def on_machine(c: ConfigDict, how: ConfigDict | None = None) -> ConfigDict:
    """The config with the mesh, micro-batches, batch sizes and rematerialisation of a machine.

    Args:
      how: an entry of `config.machines`; by default that of `config.machine`, if one is named.

    Raises:
      ValueError: `config.machines` does not have it, or not the micro-batches of a data set.
    """
    if how is None and not c.machine:
        return c
    if how is None and c.machine not in c.machines:
        raise UserError(
            f'config.machine is {c.machine!r}, but config.machines has {", ".join(c.machines) or "none"}. Give one of '
            "these, or '' for config.mesh."
        )
    how = how or c.machines[c.machine]
    c = c.copy_and_resolve_references()
    c.machine, c.mesh, c.remat = '', how.mesh, c.remat if how.remat is None else how.remat
    for name, data in c.datasets.items():
        if not isinstance(how.micro_batches, int) and name not in how.micro_batches:
            raise UserError(f'The machine has micro_batches for {list(how.micro_batches)}, but not for {name!r}.')
        data.micro_batches = how.micro_batches if isinstance(how.micro_batches, int) else how.micro_batches[name]
        data.batch_size = round(data.batch_size * how.batch)
    return c


def paper(size: str) -> ConfigDict:
    """The paper's recipe for a size of `SIZES`: four data sets, NFNet-F6 at 320 pixels (section 2.4, appendix B.1.2).

    Batch sizes are those of its ablations; it does not give those of the final models. The paper gives 32 or 64 tokens
    for paired data: here the shorter texts, of ALIGN and VTP, get 32 and those of LTIP 64. Pages and pairs are packed,
    so that few places are padding. The paper's lambdas weigh means over targets here
    (`training/objectives/next_token.py`).

    The paper's data are not public. `experiments/flamingo_3b.py` has the commands that build sets of their kinds from
    what is.
    """
    c = base()
    c.lm, c.vision = 'bundles/lm', 'bundles/nfnet_f6'
    c.image_size = 320
    c.model = ConfigDict(FlamingoConfig(**SIZES[size], image_size=c.image_size).to_json())
    c.remat = 'full'
    augmented = dict(flip=True, recolour=True, workers=16)
    # 256 pages: 64 rows of 4 lines. A window of 256 tokens has 1.25 to 2.2 images on the sets at hand, and at most 5:
    # 10 places serve 4 lines.
    pages = dict(length=256, images=10, lines=4, documents=8, window=(256, 5), p_next=0.5)
    c.datasets.m3w = dataset(
        Documents, path='DATA/web_pages/all/1.0.0', batch_size=64, loss_weight=1.0, **pages, **augmented
    )
    # 512 pairs each, if their texts have 18 and 27 tokens: 64 rows of 8.
    for name, kind, frames, weight, rows in (
        ('align', 'pairs', 1, 0.2, dict(length=128, images=8, documents=8, window=(32, 1))),
        ('ltip', 'pairs', 1, 0.2, dict(length=256, images=8, documents=8, window=(64, 1))),
        ('vtp', 'videos', 8, 0.03, dict(length=32, images=1)),
    ):
        # Of a longer text the beginning: a random window may begin behind the image.
        pair = dict(path=f'DATA/{kind}/{name}/1.0.0', frames=frames, space=0.5, from_start=True, **rows, **augmented)
        c.datasets[name] = dataset(Documents, batch_size=64, loss_weight=weight, **pair)
    return c


def dataset(kind: type[Source], **fields: Any) -> ConfigDict:
    """A data set for `config.datasets`: the class of its kind, and its fields as data."""
    fields = dataclasses.asdict(kind(**fields))
    return ConfigDict(fields | dict(kind=kind), allow_dotted_keys=True)


def source_of(c: ConfigDict) -> Source:
    """The inverse of `dataset`; an unknown key raises TypeError with its name."""
    values = c.to_dict()
    kind = values.pop('kind')
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default) and field.name in values:
            values[field.name] = type(field.default)(**values[field.name])
    return kind(**values)
