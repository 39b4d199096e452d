"""flamingo_jax: Flamingo, the visual language model that learns from the examples in its prompt, in JAX.

    flamingo = flamingo_jax.load(path)
    flamingo.generate([image, ' dog<EOC>', other_image])

Read flamingo_jax/model/flamingo.py first.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = '0.1.0'
# Public names and their modules. They are imported on first use, so that a command can answer --help without JAX.
_HOMES = {
    'Flamingo': 'flamingo_jax.model.flamingo',
    'FlamingoConfig': 'flamingo_jax.model.config',
    'LanguageModelConfig': 'flamingo_jax.model.config',
    'Pretrained': 'flamingo_jax.inference.pretrained',
    'PerceiverConfig': 'flamingo_jax.model.config',
    'GatedXattnConfig': 'flamingo_jax.model.config',
    'load': 'flamingo_jax.inference.pretrained',
}
__all__ = ['__version__', *_HOMES]

if TYPE_CHECKING:  # What an editor and a type checker see.
    from flamingo_jax.inference.pretrained import Pretrained as Pretrained
    from flamingo_jax.inference.pretrained import load as load
    from flamingo_jax.model.bridges.gated_xattn import GatedXattnConfig as GatedXattnConfig
    from flamingo_jax.model.config import FlamingoConfig as FlamingoConfig
    from flamingo_jax.model.config import LanguageModelConfig as LanguageModelConfig
    from flamingo_jax.model.connectors.perceiver import PerceiverConfig as PerceiverConfig
    from flamingo_jax.model.flamingo import Flamingo as Flamingo
else:

    def __getattr__(name: str):
        if name not in _HOMES:
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
