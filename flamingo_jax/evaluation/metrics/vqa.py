"""VQA accuracy by its short name: `vqa_accuracy.py`."""

from flamingo_jax.evaluation.metrics.vqa_accuracy import score as score
