"""The base config of a training run: every key there is, with what it means. An experiment changes some of them."""

import dataclasses
import json
from typing import Any

from ml_collections import ConfigDict

from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.model.config import SIZES, FlamingoConfig
from flamingo_jax.training.losses.noise import NoiseConfig
from flamingo_jax.training.optimizer import OptimizerConfig


def base() -> ConfigDict:
    """The paper's values where it gives them."""
    c = ConfigDict()
    c.seed = 0
    c.steps = 500_000
    # Bundle of a whole model to fine-tune: it brings config, tokenizer, frozen trees, and where the trained ones start. The
    # fields of the next paragraph are then left alone, but for `lm`: a bundle of the same shape and tokenizer, which was trained
    # further, takes the place of the language model.
    c.start = ''
    # The model. Parts that a bundle brings are read from it: `lm` (with its tokenizer) and `vision`.
    c.lm = ''  # Bundle of the pretrained language model; '' trains one from nothing.
    c.vision = ''  # Bundle of the vision trunk; '' for text alone.
    c.tokenizer = ''  # SentencePiece file, where `lm` is ''.
    c.image_tag = 'text'  # '<image>' is 'text' (paper) or a 'token' with a learnt embedding (OpenFlamingo).
    c.model = ConfigDict(FlamingoConfig().to_json())  # lm, resampler, xattn: dicts of their config's fields, or None.
    # The component trees that are trained. With 'vision' the trunk is trained end to end, from pixels.
    c.trained = ('resampler', 'xattn', 'extra_tokens')
    # LoRA on a frozen language model (model/lora.py): its tree is trained beside those above. A rank of 0 is none.
    c.lora = ConfigDict(dict(rank=0, alpha=16.0, targets=('query', 'value')))
    c.datasets = ConfigDict()  # name -> dataset(KIND, ...): the kinds are in inputs/sources/ and few_shot/source.py.
    c.noise = ConfigDict(dataclasses.asdict(NoiseConfig()))
    c.optimizer = ConfigDict(dataclasses.asdict(OptimizerConfig()))
    # False: the gradients of all data sets are accumulated into one step (paper). True: each step is of one data set, in turn
    # by name (ablation, table 3 row ii), so that as much data takes as many times the steps.
    c.round_robin = False
    c.micro_batches = 1  # Gradients of a batch are accumulated over so many parts of it.
    c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))
    c.machines = ConfigDict()  # Topology -> machine(...): what `plan` takes for it instead of the mesh above.
    c.dtype = ''  # Of the computation and of frozen parameters; '' is bfloat16 on TPU and GPU, float32 on CPU.
    c.remat = ''  # What is recomputed in the backward pass: '' nothing, or a name of `REMAT` (model/flamingo.py).
    c.log_every = 10
    c.checkpoint_every = 1000
    c.keep_checkpoints = 3
    # Every so many steps, and after the last, the loss of so many batches of each data set's `validation_split`, always the same.
    c.validate_every = 1000
    c.validation_batches = 8
    # True: a run whose seed, data sets or noise were changed resumes all the same. Parameters and moments go on, each data set
    # is read on after as many batches as were read of it, and one that is new from its beginning.
    c.resume_changed = False
    # A step whose loss or gradient is not finite changes nothing. Training stops after so many of them in a row.
    c.max_skipped_steps = 10
    c.profile = ()  # (first, last) step to trace for TensorBoard and Perfetto; () for none.
    c.lock()  # A mistyped key is an error, and is not ignored.
    for names in (c.datasets, c.machines):
        names.unlock()
    return c


def lora_fields(c: ConfigDict) -> dict[str, Any] | None:
    """`config.lora` as the model's config has it; None without it."""
    return c.lora.to_dict() if c.lora.rank else None


def trained_trees(c: ConfigDict) -> tuple[str, ...]:
    """The component trees that a config trains.

    Raises:
      ValueError: the trunk is among them, and a data set has features of it that were computed before.
    """
    trained = (*c.trained, *(['lora'] if c.lora.rank else []))
    if 'vision' in trained and (stale := [name for name, data in c.datasets.items() if data.features]):
        raise ValueError(
            f"config.trained has 'vision', and the data sets {stale} read features that the trunk gave before it was "
            "trained. Set their features to '', so that they read pixels, or take 'vision' out."
        )
    return trained


# Of a data set, what changes nothing in what is trained.
NOT_OF_THE_RECIPE = ('workers', 'validation_split')


def recipe(c: ConfigDict) -> dict[str, Any]:
    """What decides on which numbers a run is trained: config key -> value, as JSON. A resumed run is compared by it.

    The model is not part of it, nor is what may change on the way: steps, checkpoints, workers, mesh, micro-batches.
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

    out = dict(seed=c.seed, round_robin=c.round_robin, datasets=sorted(c.datasets))
    for name, data in c.datasets.items():
        of_data = flat(f'datasets.{name}', source_of(data)) | {f'datasets.{name}.kind': data.kind}
        out |= {key: value for key, value in of_data.items() if not key.endswith(NOT_OF_THE_RECIPE)}
    out |= flat('noise', NoiseConfig(**c.noise)) | flat('optimizer', OptimizerConfig(**c.optimizer))
    return json.loads(json.dumps(out, default=lambda value: value.__name__))  # Classes by their names.


def machine(data: int, fsdp: int, tensor: int, micro_batches: int = 1, batch: float = 1.0) -> ConfigDict:
    """A mesh for `config.machines`, and how to train on it; every data set's batch size is multiplied by `batch`."""
    return ConfigDict(dict(mesh=dict(data=data, fsdp=fsdp, tensor=tensor), micro_batches=micro_batches, batch=batch))


def paper(size: str) -> ConfigDict:
    """The paper's recipe for a size of `SIZES`: four data sets, NFNet-F6 at 320 pixels (section 3.2, appendix A).

    Batch sizes are those of its ablations; the final models' are not printed. ALIGN's and VTP's texts are of 32 tokens and
    LTIP's of 64, by the mean lengths of the data: the paper says 32 or 64.
    """
    c = base()
    c.lm, c.vision = 'bundles/lm', 'bundles/nfnet_f6'
    c.model = ConfigDict(FlamingoConfig(**SIZES[size], image_size=320).to_json())
    c.remat = 'full'
    augmented = dict(flip=True, recolour=True, workers=16)
    c.datasets.m3w = dataset(
        Documents, path='data/m3w', length=256, images=5, p_next=0.5, batch_size=256, loss_weight=1.0, **augmented
    )
    for name, length, frames, batch_size, weight in (
        ('align', 32, 1, 512, 0.2),
        ('ltip', 64, 1, 512, 0.2),
        ('vtp', 32, 8, 64, 0.03),
    ):
        pair = dict(length=length, images=1, frames=frames, space=0.5, **augmented)
        c.datasets[name] = dataset(Documents, path=f'data/{name}', batch_size=batch_size, loss_weight=weight, **pair)
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
