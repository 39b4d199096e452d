"""flamingo_jax: Flamingo, the visual language model that learns from the examples in its prompt, in JAX.

    flamingo = flamingo_jax.load(path)
    flamingo.generate([picture, ' dog<EOC>', other_picture])

Read flamingo_jax/model/flamingo.py first.
"""

from flamingo_jax.inference.pretrained import Pretrained, load
from flamingo_jax.model.config import FlamingoConfig, LanguageModelConfig, ResamplerConfig, XattnConfig
from flamingo_jax.model.flamingo import Flamingo

__all__ = ['Flamingo', 'FlamingoConfig', 'LanguageModelConfig', 'Pretrained', 'ResamplerConfig', 'XattnConfig', 'load']
