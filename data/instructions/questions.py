"""How a dialogue becomes a document, of which only answers are learnt: as the paper asks (appendix A.2), or as a chat.

A chat has the marks of ChatML in its texts. `Documents(chat=True)` reads them as tokens; then the document is, token
for token, the prompt of `inputs/prompts.py:chat`.
"""

import itertools
from typing import Any

from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.inputs.prompts import ANSWERS, ASKS, ENDS_TURN, TELLS


def tell(draft: Draft, text: Any, chat: bool = False) -> None:
    """Adds what a model is told before a dialogue, with weight 0. TypeError if it is not a text."""
    if text := draft.cleaned(text).strip():
        draft.say(f'{TELLS}{text}{ENDS_TURN}' if chat else text, 0.0)


def ask(draft: Draft, question: Any, answer: Any, chat: bool = False) -> bool:
    """Adds a question of weight 0 and its answer of weight 1; False if there is no answer.

    As few-shot games and evaluations ask it: a space, the question, and after the answer <EOC>, also where the next
    question is about the same image (`inputs/sources/documents.py`).

    Args:
      draft: the document.
      question: a text, or a list of texts and of images that have been checked, in reading order.
      answer: a text. Without one, the images are kept, since later questions may be about them.
      chat: with the marks of ChatML.

    Raises:
      TypeError: what should be a text is none.
    """
    parts = question if isinstance(question, list) else [question]
    parts = [part if _is_image(part) else draft.cleaned(part).strip() for part in parts]
    parts, answer = list(filter(None, parts)), draft.cleaned(answer).strip()
    if not answer:
        for image in filter(_is_image, parts):
            draft.add(image)
        draft.drop('answer_empty', 'text', ' '.join(itertools.filterfalse(_is_image, parts)))
        return False
    if chat:
        before, begin, end = [], ('' if draft.is_empty else '\n') + ASKS, ANSWERS
    else:
        before, begin, end = list(itertools.takewhile(_is_image, parts)), ' Question:', ' Answer:'
    asked = [*before, begin]
    for part in parts[len(before) :]:
        continues = chat and asked[-1] is begin
        asked.append(part if _is_image(part) or continues else f' {part}')
    for is_image, some in itertools.groupby([*asked, end], _is_image):
        if is_image:
            for image in some:
                draft.add(image)
        else:
            draft.say(''.join(some), 0.0)
    draft.say(f'{answer}{ENDS_TURN}' if chat else f' {answer}', 1.0)
    return True


def _is_image(part: Any) -> bool:
    return isinstance(part, bytes)
