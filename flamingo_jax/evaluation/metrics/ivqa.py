"""The accuracy of iVQA by its short name: `ivqa_accuracy.py`."""

from flamingo_jax.evaluation.metrics.ivqa_accuracy import score as score
