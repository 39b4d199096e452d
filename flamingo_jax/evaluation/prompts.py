"""How a benchmark's questions are written, and where its answers end: as in the paper, in OpenFlamingo or for IDEFICS.

Each text is exactly what stands between two images, spaces included.
"""

import dataclasses
import re
import string

from flamingo_jax import commands
from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.rices import BY_CLIP, RICES


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The templates of the paper (appendix A.2 and figure 8).

    Attributes:
      question, output, meme, action: the text between an image and its answer. A question of a dialogue follows the
        answer before it.
      answer: the answer after that text.
      between: text after the <EOC> of each example, if answers are open-ended.
      ends: whether the likelihood of a candidate includes that of <EOC> after it. The paper does not say.
      first: whether an example shows its first annotator's answer, not the most frequent one. The paper does not say.
      answer_ends, output_ends: where a generated answer ends, if not at <EOC>: a regular expression.
      left_out: characters that are removed from a generated caption.
    """

    question: str = ' Question: {question} Answer:'
    output: str = ' Output:'
    meme: str = ' is an image with written: "{text}" on it. Is it hateful? Answer:'
    action: str = ' Caption:'
    answer: str = ' {answer}'
    between: str = ''
    ends: bool = True
    first: bool = False
    answer_ends: str = 'Question:|Answer:'
    output_ends: str = 'Output:'
    left_out: str = ''

    def __post_init__(self):
        """ValueError if a template misses the field that belongs into it."""
        for name, needed in dict(question='question', output=None, meme='text', action=None, answer='answer').items():
            fields = [field for _, field, _, _ in string.Formatter().parse(getattr(self, name)) if field is not None]
            if fields != ([needed] if needed else []):
                there = f'exactly one {{{needed}}}' if needed else 'no fields'
                raise UserError(f'prompts.{name} is {getattr(self, name)!r}. It must have {there}.')

    def read_answer(self, text: str) -> str:
        """The part of a generated answer to a question that is scored."""
        return re.split(self.answer_ends, text, maxsplit=1)[0].strip()

    def read_output(self, text: str) -> str:
        """The part of a generated caption that is scored."""
        text = re.split(self.output_ends, text, maxsplit=1)[0]
        return ''.join(c for c in text if c not in self.left_out).strip()


PAPER = Prompts()
# open_flamingo/eval, version 2.0.1. It has neither dialogues nor videos: those get its question and caption.
OPEN_FLAMINGO = Prompts(
    question='Question:{question} Short answer:',
    output='Output:',
    meme="is an image with: '{text}' written on it. Is it hateful? Answer:",
    action='Output:',
    answer='{answer}',
    between='\n',
    ends=False,
    first=True,
    answer_ends='Question|Answer|Short|, ',
    output_ends='Output',
    left_out='"',
)

# OpenFlamingo's suite asks an IDEFICS so. IDEFICS has no <EOC>: a line break ends each example, and the answer.
IDEFICS = dataclasses.replace(
    OPEN_FLAMINGO, question='Question:{question} Answer:', output='Caption:', answer=' {answer}', between=''
)


def named(name: str) -> Prompts:
    """The prompts that a config's argument names: `--config=experiments/evaluate/vqav2.py:open_flamingo`.

    ValueError for another name.
    """
    return commands.part(dict(paper=PAPER, open_flamingo=OPEN_FLAMINGO, idefics=IDEFICS), name)


def retrieval(name: str) -> str:
    """The support whose examples look like the query, for the prompts of this name.

    The paper compares by the model's own trunk, OpenFlamingo's suite by a CLIP, whichever model it asks.
    """
    return RICES if name == 'paper' else BY_CLIP
