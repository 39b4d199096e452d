"""TFDS builders and fetch scripts, one folder per data set; flamingo_jax itself never imports them."""
