"""The base config of a training run: every key there is, with what it means. An experiment changes some of them."""

import dataclasses

from ml_collections import ConfigDict

from flamingo_jax.inputs.few_shot import FewShotConfig
from flamingo_jax.inputs.pipeline import DatasetConfig
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.training.loss import NoiseConfig
from flamingo_jax.training.optimizer import OptimizerConfig


def base() -> ConfigDict:
    """The paper's values where it gives them."""
    c = ConfigDict()
    c.seed = 0
    c.steps = 500_000
    # The model. Parts that a bundle brings are read from it: `lm` (with its tokenizer) and `vision`.
    c.lm = ''  # Bundle of the pretrained language model; '' trains one from nothing.
    c.vision = ''  # Bundle of the vision trunk; '' for text alone.
    c.tokenizer = ''  # SentencePiece file, where `lm` is ''.
    c.image_tag = 'text'  # '<image>' is 'text' (paper) or a 'token' with a learnt embedding (OpenFlamingo).
    c.model = ConfigDict(FlamingoConfig().to_json())  # lm, resampler, xattn: dicts of their config's fields, or None.
    c.trained = ('resampler', 'xattn', 'extra_tokens')
    c.datasets = ConfigDict()  # name -> dataset(...)
    c.noise = ConfigDict(dataclasses.asdict(NoiseConfig()))
    c.optimizer = ConfigDict(dataclasses.asdict(OptimizerConfig()))
    c.micro_batches = 1  # Gradients of a batch are accumulated over so many parts of it.
    c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))
    c.dtype = ''  # Of the computation and of frozen parameters; '' is bfloat16 on TPU and GPU, float32 on CPU.
    c.remat = ''  # What is recomputed in the backward pass: '' nothing, or a name of `REMAT` (model/flamingo.py).
    c.log_every = 10
    c.checkpoint_every = 1000
    c.keep_checkpoints = 3
    return c


def dataset(few_shot: FewShotConfig | None = None, **fields) -> ConfigDict:
    """A data set for `config.datasets`, as data; the fields are those of `DatasetConfig`."""
    fields = dataclasses.asdict(DatasetConfig(**fields))
    c = ConfigDict(fields, allow_dotted_keys=True)
    c.few_shot = ConfigDict(dataclasses.asdict(few_shot)) if few_shot else None
    return c


def dataset_config(c: ConfigDict) -> DatasetConfig:
    """The inverse of `dataset`; an unknown key raises TypeError with its name."""
    fields = c.to_dict()
    if fields['few_shot'] is not None:
        fields['few_shot'] = FewShotConfig(**fields['few_shot'])
    return DatasetConfig(**fields)
