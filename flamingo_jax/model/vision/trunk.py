"""What every vision trunk gives. A new one is one file beside this, whose config is found by the name of the file."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
from jax.typing import DTypeLike

from flamingo_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The config of a trunk: a frozen dataclass with fields of its own, and what is below."""

    family: ClassVar[str]  # The name of its file, by which a bundle finds it.
    fit: ClassVar[str] = 'pad'  # How an image is made square, see `inputs/images.py`.
    float32_only: ClassVar[bool] = False  # Whether it is stored and computed in float32 whatever the model's dtype.
    without_resampler: ClassVar[bool] = False  # Whether its features are few enough to be media tokens themselves.
    at_once: ClassVar[int] = 2**30  # Most images of a batch, where their attention would not fit the memory.
    # Classes of the trunk's own classifier, whose answer is one more place of the features (`classifier.py`); 0: none.
    classes: int = dataclasses.field(default=0, kw_only=True)
    # A trunk that computes once what depends on no image has a method here: its tree in float32, boxed or not -> the
    # tree as a model keeps it that does not train it.
    kept: ClassVar[Callable[..., dict[str, Any]] | None] = None

    @property
    def width(self) -> int:
        """d_v, the channels of the features."""
        raise NotImplementedError

    def spatial(self, image_size: int) -> int:
        """The features that the trunk gives of an image of so many pixels a side."""
        raise NotImplementedError

    def places(self, image_size: int) -> int:
        """s, the features that a model has of such an image: the trunk's, then the answer of its classifier, if any."""
        return self.spatial(image_size) + bool(self.classes)

    def operations(self, image_size: int) -> float:
        """Floating-point operations of the forward pass of one image: 2 for each multiply and add."""
        raise NotImplementedError

    def trunk(self, dtype: DTypeLike, name: str) -> nn.Module:
        """The module: pixels float32 [b height width 3], 0 to 255 -> features [b s d_v] in `dtype`."""
        raise NotImplementedError


def family(name: str) -> type[VisionConfig]:
    """The config of a family of trunks; ValueError if there is no such file beside this."""
    try:
        module = importlib.import_module(f'flamingo_jax.model.vision.{name}')
    except ImportError as error:
        raise UserError(f'There is no vision trunk of the family {name!r} in flamingo_jax/model/vision/.') from error
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, VisionConfig) and getattr(value, 'family', '') == name:
            return value
    raise UserError(f'flamingo_jax/model/vision/{name}.py holds no vision trunk.')
