"""An objective is a class of rows and their loss, in one file of this folder.

    class Ordered(NamedTuple):      what a document becomes (`inputs.rows.Row` says what the class has)
        ...

    @loss_of(Ordered)
    def loss_sum(model, trained, frozen, batch, key, noise): ...

A data set names the class, `dataset(Documents, row=Ordered)`; no other code does. `next_token.py` is the paper's.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from jaxtyping import Array, Float

from flamingo_jax.inputs.rows import Batch, Row

# (model, trained, frozen, batch, key, noise) -> (summed loss, sums for the metrics); see `next_token.loss_sum`.
Loss: TypeAlias = Callable[..., tuple[Float[Array, ''], dict[str, Any]]]
LOSSES: dict[type[Row], Loss] = {}


def loss_of(row: type) -> Callable[[Loss], Loss]:
    """Decorates the loss of batches of this class."""

    def keep(loss: Loss) -> Loss:
        LOSSES[row] = loss
        return loss

    return keep


def loss_sum(batch: Batch, *arguments: Any, **named: Any) -> tuple[Float[Array, ''], dict[str, Any]]:
    """The summed loss of a batch; the other arguments are as for `Loss`."""
    model, trained, frozen, *others = arguments
    return LOSSES[type(batch)](model, trained, frozen, batch, *others, **named)
