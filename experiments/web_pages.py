"""The model of experiments/picture_dictionary, further on interleaved web pages by the paper's recipe for M3W:

    data/debian_pages/fetch.sh RAW en de
    python -m data.debian_pages.build --raw=RAW --out=DATA
    python -m flamingo_jax.train --config=experiments/web_pages.py --workdir=runs/web_pages \
        --config.datasets.pages.path=DATA/debian_pages/all/1.0.0

A sequence is a random window of a page with up to five images. Each page ties its text by chance to the images
before or after it (paper, section 2.4 and appendix A.3.2). The window is shorter than the paper's 256 tokens, since the
language model is small. It has read few texts as long as a page: this shows that the data trains, and no more.
"""

from ml_collections import ConfigDict

from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.training import config as training


def get_config() -> ConfigDict:
    """100 steps of 8 pages, from pixels."""
    c = training.base()
    c.start = 'experiments/picture_dictionary'
    c.steps = c.checkpoint_every = 100
    c.datasets.pages = training.dataset(
        Documents, path='DATA/debian_pages/all/1.0.0', length=96, images=5, p_next=0.5, batch_size=8
    )
    c.optimizer.update(learning_rate=5e-4, warmup_steps=10, final_fraction=0.1)
    return c
