"""The card of a bundle, README.md, in the form of Hugging Face's model cards: YAML for machines, Markdown for readers.

https://huggingface.co/docs/hub/model-cards says what the fields mean. A card that somebody wrote (`--card`) is kept as
it is; what it lacks is not made up.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence

TAGS = ('flamingo', 'jax', 'flax')
UNKNOWN = 'Not stated.'


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What a card says. Empty fields are left out of the YAML, and said to be unknown in the text."""

    title: str
    description: str
    license: str = 'other'  # As Hugging Face names it. 'other' is that of the source, which the text names.
    language: Sequence[str] = ()
    tags: Sequence[str] = ()  # Beside TAGS.
    datasets: Sequence[str] = ()
    metrics: Sequence[str] = ()
    base_model: Sequence[str] = ()
    uses: str = UNKNOWN
    limits: str = UNKNOWN
    data: str = UNKNOWN
    procedure: str = UNKNOWN
    evaluation: str = UNKNOWN
    how_to_use: str = ''  # '' is left out.

    def __str__(self) -> str:
        """The Markdown of README.md."""
        sections = {
            'Model description': self.description,
            'Intended use': self.uses,
            'Limits': self.limits,
            'Training data': self.data,
            'Training procedure': self.procedure,
            'Evaluation': self.evaluation,
            'How to use': self.how_to_use,
        }
        text = ''.join(f'\n## {name}\n\n{said.strip()}\n' for name, said in sections.items() if said)
        return f'{self.front_matter()}\n# {self.title}\n{text}'

    def front_matter(self) -> str:
        """The YAML between two lines `---`."""
        lists = dict(
            language=self.language,
            tags=(*TAGS, *self.tags),
            datasets=self.datasets,
            metrics=self.metrics,
            base_model=self.base_model,
        )
        # A text of JSON is one of YAML, whatever its characters.
        lines = [f'license: {self.license}', 'library_name: flamingo_jax']
        for name, values in lists.items():
            if values:
                lines += [f'{name}:', *(f'- {json.dumps(str(value), ensure_ascii=False)}' for value in values)]
        return '\n'.join(['---', *lines, '---', ''])


def with_front_matter(card: str) -> str:
    """A card that somebody wrote, with YAML before it if it has none."""
    return card if card.startswith('---\n') else f'{ModelCard("", "").front_matter()}\n{card}'


def parameters(counts: Mapping[str, int], step: int) -> str:
    """The last section of a trained model's card: the parameters of each component tree."""
    lines = '\n'.join(f'| {name} | {count:,} |' for name, count in counts.items())
    return f'\n## Parameters\n\nStep {step} of its run.\n\n| component | parameters |\n|---|---|\n{lines}\n'
