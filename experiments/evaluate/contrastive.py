"""Zero-shot classification and retrieval by the two towers of contrastive pretraining (paper, tables 7 and 9).

    python -m flamingo_jax.evaluate --config=experiments/evaluate/contrastive.py:imagenet --workdir=DIR \
        --checkpoint=BUNDLE_OR_WORKDIR --config.data=FOLDER

The part after the colon is `imagenet`, `coco` or `flickr30k`.
"""

from ml_collections import ConfigDict

from flamingo_jax import commands
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.coco import COCO
from flamingo_jax.evaluation.datasets.flickr30k import Flickr30k
from flamingo_jax.evaluation.datasets.imagenet import ImageNet
from flamingo_jax.evaluation.retrieval import ImagesOfTexts, TextsOfImages

# Ways to write a class, whose vectors are averaged. CLIP has 80 for ImageNet; the paper gives the first.
PROMPTS = (
    'A photo of a {}',
    'An image of a {}',
    'A close-up photo of a {}',
    'A photo of a small {}',
    'A photo of a large {}',
    'A drawing of a {}',
    '{}',
)


def get_config(part: str = 'imagenet') -> ConfigDict:
    """One set. ValueError: it is not known."""
    c = evaluation.base()
    c.episodes = evaluation.ALL
    captions = commands.part(dict(imagenet=None, coco=COCO, flickr30k=Flickr30k), part)
    if part == 'imagenet':
        c.tasks.imagenet = evaluation.task(ImageNet, answers=('compared',), shots=(0,), class_prompts=PROMPTS)
    else:
        c.tasks.texts = evaluation.task(TextsOfImages, captions=captions)
        c.tasks.images = evaluation.task(ImagesOfTexts, captions=captions)
    return c
