"""Serves a model: to clients of OpenAI's API (`python -m flamingo_jax.serve`), and what the page needs as well."""
