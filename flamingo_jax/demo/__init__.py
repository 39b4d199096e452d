"""A page in the browser on which one teaches a Flamingo by examples: `python -m flamingo_jax.demo`."""
