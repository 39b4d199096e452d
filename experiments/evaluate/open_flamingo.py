"""OpenFlamingo's table (2308.01390, table 11): eight sets at 0, 4, 8, 16 and 32 shots, as its evaluate.py does.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/open_flamingo.py --checkpoint=BUNDLE \
        --workdir=DIR --config.data=FOLDER

FOLDER has a folder of each set's published files, under these names: coco, flickr30k, ok_vqa, vqav2, textvqa, vizwiz,
hateful_memes, imagenet. `:coco,vqav2` after the config's path asks these sets alone. A score is the mean of three
seeds, as in the paper. The report shows the paper's figures for OpenFlamingo-9B beside it; for another model:
--config.published=experiments/evaluate/published/OpenFlamingo-3B.json. DIR/open_flamingo_random.json is a results file
as its evaluate.py writes it, which `flamingo_jax.compare` reads too.

OK-VQA's stems need NLTK: pip install -e '.[english]', and the data that the command names. ImageNet's class names are
those of its `classes.txt`; OpenFlamingo has CLIP's.

Table 12, with retrieved examples: --config.clip=BUNDLE, for each set --config.tasks.coco.support="('rices by clip',)",
and --config.published=experiments/evaluate/published/OpenFlamingo-9B-RICES.json. Baselines, which its code
does not ask: --config.tasks.coco.controls=all.
"""

import pathlib

from ml_collections import ConfigDict

from experiments.evaluate import coco, flickr30k, hateful_memes, imagenet, ok_vqa, textvqa, vizwiz, vqav2
from flamingo_jax import commands
from flamingo_jax.evaluation import config as evaluation

CONFIGS = dict(
    coco=coco, flickr30k=flickr30k, ok_vqa=ok_vqa, vqav2=vqav2, textvqa=textvqa, vizwiz=vizwiz,
    hateful_memes=hateful_memes, imagenet=imagenet,
)  # fmt: skip


def get_config(sets: str = '') -> ConfigDict:
    """All sets, or those of a list with commas."""
    return suite('open_flamingo', 'OpenFlamingo-9B', sets)


def suite(prompts: str, published: str, sets: str) -> ConfigDict:
    """The sets as OpenFlamingo's code asks them, in a model's own prompts, beside the published scores of a model.

    ValueError: a set is not known.
    """
    c = evaluation.base()
    c.episodes, c.seeds = evaluation.ALL, 3
    c.published = str(pathlib.Path(__file__).parent / 'published' / f'{published}.json')
    for name in sets.split(',') if sets else CONFIGS:
        own = commands.part(CONFIGS, name).get_config(prompts)
        c.tasks[name] = own.tasks[name]
        c.tasks[name].update(shots=(0, 4, 8, 16, 32), support=('random',), controls=())
        c.tasks[name].max_new_tokens = own.max_new_tokens
        c.tasks[name].data = c.get_ref('data') + f'/{name}'  # Wherever the flag says that the data is.
    return c
