"""The text after every block of the language model, for what compares these states or looks at them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

from jaxtyping import Array, Float, Int

from flamingo_jax.model import stack
from flamingo_jax.model.flamingo import Flamingo, Media, Params, Placement


@dataclasses.dataclass(frozen=True)
class _EveryBlock(Flamingo):
    """A Flamingo whose decoder keeps y of every block."""

    loop: ClassVar[Callable[..., Any]] = staticmethod(functools.partial(stack.scan, every_block=True))


def states(
    model: Flamingo,
    params: Params,
    images: Float[Array, 'b n t s d_v'] | None,
    tokens: Int[Array, 'b l'],
    phi: Int[Array, 'b l'] | None = None,
) -> Float[Array, 'depth b l d']:
    """The text after every block; arguments as for `Flamingo.hidden`."""
    return decoded(model, params, model.embed(params, tokens), model.place(tokens, phi), model.media(params, images))


def decoded(
    model: Flamingo, params: Params, y: Float[Array, 'b l d'], at: Placement, media: Media | None
) -> Float[Array, 'depth b l d']:
    """The same of embedded text; arguments as for `Flamingo.decoder`."""
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    return _EveryBlock(**fields).decoder(params, y, at, media)[0]
