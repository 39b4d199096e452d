"""Zero-shot classification and retrieval by the two towers of contrastive pretraining (paper, tables 7 and 9).

    python -m flamingo_jax.evaluate --config=experiments/evaluate/contrastive.py:imagenet --workdir=DIR \
        --checkpoint=BUNDLE_OR_WORKDIR --config.data=FOLDER

The part after the colon is `imagenet`, `coco`, `flickr30k`, or `images` for experiments/contrastive_pictures.py, with
--config.data=DATA/picture_dictionary/full/1.0.0.
"""

from ml_collections import ConfigDict

from experiments.contrastive_pictures import STYLES
from flamingo_jax import commands
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.coco import COCO
from flamingo_jax.evaluation.datasets.flickr30k import Flickr30k
from flamingo_jax.evaluation.datasets.imagenet import ImageNet
from flamingo_jax.evaluation.retrieval import ImagesOfTexts, TextsOfImages
from flamingo_jax.tasks.names import Names

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


def get_config(part: str = 'images') -> ConfigDict:
    """One set. ValueError: it is not known."""
    c = evaluation.base()
    c.episodes = evaluation.ALL
    captions = commands.part(dict(images=None, imagenet=None, coco=COCO, flickr30k=Flickr30k), part)
    if part == 'imagenet':
        c.tasks.imagenet = evaluation.task(ImageNet, answers=('compared',), shots=(0,), class_prompts=PROMPTS)
    elif part == 'images':
        c.episodes = 400
        for split in ('train', 'test'):
            # Beside it, the nearest image of the artists that were trained on, by the trunk alone.
            c.tasks[split] = evaluation.task(
                Names,
                title=f'names in the style of twemoji, {split}',
                answers=('compared',),
                shots=(0,),
                query_styles=('twemoji',),
                support_styles=STYLES,
                query_split=split,
                support_split=split,
            )
    else:
        c.tasks.texts = evaluation.task(TextsOfImages, captions=captions)
        c.tasks.images = evaluation.task(ImagesOfTexts, captions=captions)
    return c
