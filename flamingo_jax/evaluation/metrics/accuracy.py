"""Top-1 accuracy by its short name: `top1.py`."""

from flamingo_jax.evaluation.metrics.top1 import score as score
