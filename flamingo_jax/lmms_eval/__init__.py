"""The plug-in for lmms-eval: `lmms-eval --model flamingo_jax` finds it by the entry point `lmms_eval.models`.

lmms-eval asks for the manifest whenever it starts, so that this file imports neither JAX nor PyTorch.
"""

from typing import Any


def manifest() -> Any:
    """What lmms-eval registers: the name of the model, and where its class is."""
    from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]  # It imports this.

    return ModelManifest('flamingo_jax', simple_class_path='flamingo_jax.lmms_eval.model.FlamingoJax')
