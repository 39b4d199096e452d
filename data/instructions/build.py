"""Questions and answers about pictures, from LLaVA-Instruct-150K, the mix of LLaVA-1.5, MIMIC-IT or M3IT.

    python -m data.instructions.build --source=llava_v1_5_mix665k.json --pictures=PICTURES --out=DATA --name=llava
    python -m data.instructions.build --source=LA_instructions.json --pictures=images.parquet --out=DATA --name=mimic_it
    python -m data.instructions.build --source="m3it/**/*.jsonl" --out=DATA --name=m3it

PICTURES has the folders that the mix names: coco/ gqa/ ocr_vqa/ textvqa/ vg/. Questions have the loss weight 0, answers
1. The mix holds training questions of VQAv2, OK-VQA and TextVQA: a model trained on them has seen these tasks.
"""

from data import published

if __name__ == '__main__':
    published.start(__doc__)

from flamingo_jax.building.readers import instructions
from flamingo_jax.building.readers.builder import PublishedBuilder


class Instructions(PublishedBuilder):
    """Questions and answers about pictures."""

    READERS = {'.json': instructions.read, '.jsonl': instructions.read, '.parquet': instructions.read}


if __name__ == '__main__':
    published.build(Instructions)
