"""Questions and answers about images, from LLaVA-Instruct-150K, the mix of LLaVA-1.5, The Cauldron, FineVision,
MIMIC-IT or M3IT, or from chats with `messages`.

    python -m data.instructions.build --source=llava_v1_5_mix665k.json --images=IMAGES --out=DATA --name=llava
    python -m data.instructions.build --source=LA_instructions.json --images=images.parquet --out=DATA --name=mimic_it
    python -m data.instructions.build --source="FineVision/*.parquet" --out=DATA --name=finevision
    python -m data.instructions.build --source="SAVED/**/*.arrow" --out=DATA --name=cauldron
    python -m data.instructions.build --source="m3it/**/*.jsonl" --out=DATA --name=m3it

IMAGES has the folders that the mix names: coco/ gqa/ ocr_vqa/ textvqa/ vg/. Questions have the loss weight 0, answers
1. The mix holds training questions of VQAv2, OK-VQA and TextVQA: a model trained on them has seen these tasks.

--chat marks the turns as in ChatML, in which SmolLM2 and Qwen were trained. Train with `chat=True` in the config's data
set, and ask with `generate --chat`.
"""

from absl import flags

from data import published

if __name__ == '__main__':
    flags.DEFINE_bool('chat', False, 'Mark the turns as in ChatML, for a language model that chats.')
    published.start(__doc__)

import functools

from flamingo_jax.building.readers import instructions
from flamingo_jax.building.readers.builder import PublishedBuilder


class Instructions(PublishedBuilder):
    """Questions and answers about images."""

    def __init__(self, chat: bool = False, **rest):
        """chat: the turns are marked as in ChatML. The rest is as for `PublishedBuilder`."""
        read = functools.partial(instructions.read, chat=chat)
        self.READERS = dict.fromkeys(('.json', '.jsonl', '.parquet', '.arrow'), read)
        super().__init__(**rest)


if __name__ == '__main__':
    published.build(Instructions, chat=flags.FLAGS.chat)
