"""The answers to a request, and how the API of OpenAI writes them."""

import time
import uuid
from typing import Any, NamedTuple

from flamingo_jax.inference.serving import Answer
from flamingo_jax.serving.conversation import Items
from flamingo_jax.serving.service import Service
from flamingo_jax.serving.settings import Settings


class Question:
    """A request, read, and its answers while they are written."""

    def __init__(self, prompts: list[Items], settings: Settings):
        """Not yet asked."""
        self.prompts, self.settings = prompts, settings
        self.answers: list[Answer] = []  # `settings.n` for each prompt.
        self._closed = False

    def ask(self, service: Service) -> None:
        """Asks for all answers, from any thread. UserError if a prompt is not valid or does not fit."""
        for prompt in self.prompts:
            for i in range(self.settings.n):
                self.answers.append(service.ask(prompt, self.settings, i))
                if self._closed:
                    return self.close()

    def close(self) -> None:
        """Ends the answers that are not whole."""
        self._closed = True
        for answer in self.answers:
            answer.cancel()


class Choice(NamedTuple):
    """One whole answer."""

    text: str
    tokens: int
    finish: str
    likelihoods: list[dict[str, Any]] | None
    probability: float | None = None

    @property
    def told(self) -> dict[str, float]:
        """What OpenAI's API has no field for, if it was asked for."""
        return {} if self.probability is None else dict(probability=self.probability)


class Form:
    """How the answers of one endpoint are written: as a chat's, or as a completion's."""

    def __init__(self, chat: bool, model: str):
        """chat: of /v1/chat/completions."""
        self.chat, self.model = chat, model
        self._id = f'{"chatcmpl" if chat else "cmpl"}-{uuid.uuid4().hex}'
        self._created = int(time.time())

    def whole(self, choices: list[dict[str, Any]], part: bool = False, **rest: Any) -> dict[str, Any]:
        """A response, or a part of a stream."""
        kind = 'text_completion' if not self.chat else 'chat.completion.chunk' if part else 'chat.completion'
        return dict(id=self._id, object=kind, created=self._created, model=self.model, choices=choices) | rest

    def choice(self, i: int, choice: Choice) -> dict[str, Any]:
        """A whole answer."""
        said = dict(message=dict(role='assistant', content=choice.text)) if self.chat else dict(text=choice.text)
        logprobs = self._logprobs(choice.likelihoods)
        return dict(index=i, **said, finish_reason=choice.finish, logprobs=logprobs, **choice.told)

    def part(self, i: int, text: str, first: bool = False, choice: Choice | None = None) -> dict[str, Any]:
        """A piece of an answer in a stream. choice: the whole one, in its last part."""
        delta = (dict(role='assistant') if first else {}) | (dict(content=text) if text or first else {})
        said = dict(delta=delta) if self.chat else dict(text=text)
        logprobs = self._logprobs(choice.likelihoods) if choice else None
        finish, told = (choice.finish, choice.told) if choice else (None, {})
        return dict(index=i, **said, finish_reason=finish, logprobs=logprobs, **told)

    def _logprobs(self, found: list[dict[str, Any]] | None) -> dict[str, Any] | None:
        if found is None:
            return None
        if self.chat:

            def told(token: str, logprob: float) -> dict[str, Any]:
                return dict(token=token, logprob=logprob, bytes=list(token.encode()))

            return dict(
                content=[
                    told(one['token'], one['logprob']) | dict(top_logprobs=[told(*top) for top in one['top']])
                    for one in found
                ]
            )
        ends = [0]
        for one in found:
            ends.append(ends[-1] + len(one['token']))
        return dict(
            tokens=[one['token'] for one in found],
            token_logprobs=[one['logprob'] for one in found],
            top_logprobs=[dict(one['top']) for one in found],
            text_offset=ends[:-1],
        )
