"""How questions and answers become a document: the paper's prompt (appendix A.2), of which only answers are learnt."""

from typing import Any

from flamingo_jax.building.readers.draft import Draft


def ask(draft: Draft, question: Any, answer: Any) -> bool:
    """Adds a question of weight 0 and its answer of weight 1; False if there is no answer.

    As few-shot games and evaluations ask it: a space, the question, and after the answer <EOC>, also where the next
    question is about the same picture (`inputs/sources/documents.py`).

    Raises:
      TypeError: one of the two is not a text.
    """
    if not isinstance(question, str) or not isinstance(answer, str):
        raise TypeError('a question or an answer is not a text')
    question, answer = question.strip(), answer.strip()
    if not answer:
        draft.drop('answer_empty', 'text', question)
        return False
    draft.text(f' Question: {question} Answer:', 0.0)
    return draft.text(f' {answer}', 1.0)
