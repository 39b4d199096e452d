"""What is learned: one file an objective. The paper's is always there; others come with the class of their rows."""

from flamingo_jax.training.objectives import next_token as next_token
