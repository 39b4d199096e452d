"""Writes the bundle of a published model that a module of `conversion/` reads."""

from collections.abc import Callable
from typing import Any

from flamingo_jax.checkpoints import bundle, model_card
from flamingo_jax.checkpoints.model_card import ModelCard
from flamingo_jax.conversion.converted import Converted
from flamingo_jax.conversion.local_copy import local_copy
from flamingo_jax.hub import origin, parse


def write(read: Callable[..., Converted], source: str, out: str, *more: str, card: str = '', **flags: Any) -> None:
    """Writes a published model as a bundle, and prints its report. Only a few of its tensors are in memory at a time.

    Args:
      read: reads it, such as `conversion.idefics.convert`.
      source: a file or a folder, as `read` takes it, also in a bucket or on the Hub, whose commit the card then names.
      card: the beginning of the model card; '' says what `read` knows.
      more, flags: what else `read` takes.

    Raises:
      FileExistsError: `out` exists.
      FileNotFoundError, ImportError, ValueError: as for `read`; nothing is written.
    """
    with bundle.on_disk(out) as empty:
        found = read(local_copy(source), *more, **flags, empty=empty, progress=True)
        about = dict(found.card)
        if came := origin(source):
            about = (
                dict(procedure=f'Converted from {came} on the Hugging Face Hub.', base_model=[parse(source)[0]]) | about
            )
        bundle.save(
            out,
            found.config,
            found.params,
            tokenizer=found.tokenizer,
            image_tag=found.image_tag,
            card=model_card.with_front_matter(card) if card else str(ModelCard(**about)),
            progress=True,
        )
    if found.report:
        print(found.report)
