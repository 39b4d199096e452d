"""What a server asks of a model: answers, ranks, and examples that it remembers by name."""

import collections
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from flamingo_jax.errors import UserError
from flamingo_jax.inference.pretrained import Pretrained, Written
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inference.serving import Answer, Engine
from flamingo_jax.inputs.prompts import Encoded, dialogue_of, encode
from flamingo_jax.serving.conversation import (
    Items,
    Message,
    answer_of,
    examples_of,
    joined,
    prompt_of,
    read_items,
    read_messages,
)
from flamingo_jax.serving.images import Image, Images
from flamingo_jax.serving.settings import Settings
from flamingo_jax.tasks.nearest import nearest_neighbour, pooled

ANSWER, CHAT = 32, 256  # Tokens of an answer if the request does not say: as `generate`.
MEMORIES, MEMORY_FRAMES, CANDIDATES, PROMPTS = 64, 2048, 256, 16  # Most of each.


class Memory(NamedTuple):
    """Examples that were sent once."""

    messages: list[Message]
    prompt: Items  # Of the examples alone.
    created: int
    usage: dict[str, Any]


class Service:
    """One model. Its methods may be called from any thread; those that compute say so, and are for `Engine.call`."""

    def __init__(self, engine: Engine, images: Images, name: str):
        """name: of the model, as clients call it."""
        self.engine, self.flamingo, self.images, self.name = engine, engine.flamingo, images, name
        self.memories: collections.OrderedDict[str, Memory] = collections.OrderedDict()

    def prompts(self, asked: Mapping[str, Any], chat: bool) -> tuple[list[Items], Memory | None]:
        """The prompts of a request, and the memory that it names. UserError if they are not valid."""
        memory = self._memory(asked.get('memory'))
        before = memory.messages if memory else []
        if chat:
            messages = [*before, *read_messages(asked.get('messages'), self.images)]
            return [prompt_of(messages, self.flamingo.tokenizer)], memory
        given = asked.get('prompt')
        if not isinstance(given, str | list) or given == []:
            raise UserError('prompt must be a text, a list of texts, or a list of parts with images.')
        several = isinstance(given, list) and all(isinstance(one, str) for one in given)
        contents: list[Any] = [*given] if several else [given]
        if len(contents) > PROMPTS:
            raise UserError(f'The request has {len(contents)} prompts. Send at most {PROMPTS}.')
        beginning = memory.prompt if memory else []
        return [joined([*beginning, *read_items(one, self.images)]) for one in contents], memory

    def ask(self, prompt: Items, settings: Settings, i: int) -> Answer:
        """Choice i for a prompt, while it is written. UserError if it is not valid or does not fit."""
        return self.engine.ask(prompt, settings.of_choice(i, settings.most or self._room(prompt)))

    def _room(self, prompt: Items) -> int:
        """Most tokens of an answer if the request does not say."""
        f = self.flamingo
        free = f.config.lm.context - len(encode(prompt, f.tokenizer).tokens)
        return max(1, min(CHAT, free)) if dialogue_of(f.tokenizer) else ANSWER

    def usage(self, prompts: list[Encoded], completion: int = 0) -> dict[str, Any]:
        """The tokens of a request. An image counts as its media tokens, which take no room in the context."""
        text, number = sum(len(one.tokens) for one in prompts), sum(len(one.images) for one in prompts)
        shown = number * self.flamingo.config.media_tokens if number else 0
        return dict(
            prompt_tokens=text + shown,
            completion_tokens=completion,
            total_tokens=text + shown + completion,
            prompt_tokens_details=dict(text_tokens=text, image_tokens=shown),
        )

    def warm(self, images: int) -> None:
        """Compiles what short conversations about up to so many images need. For before anything is asked."""
        sizes = [0, *(2**i for i in range(images.bit_length()))]
        prompts = [prompt_of(_conversation(n, self.flamingo), self.flamingo.tokenizer) for n in sizes]
        with tqdm(desc='warm', total=len(prompts) * self.engine.sizes, unit=' programs') as bar:
            for prompt in prompts:
                self.engine.warm([prompt], Sampling(self._room(prompt)), bar.update)

    # ---- Memories

    def add(self, asked: Mapping[str, Any]) -> tuple[str, Memory]:
        """Takes examples under a name, in place of earlier ones of that name. UserError if they are not valid."""
        name = asked.get('name')
        if not isinstance(name, str) or not re.fullmatch(r'[\w.-]{1,64}', name):
            raise UserError('name must be 1 to 64 letters, digits, dots, dashes or underscores.')
        messages = read_messages(asked.get('messages'), self.images)
        prompt = prompt_of(messages, self.flamingo.tokenizer, open_end=False)
        usage = self.usage([self.flamingo.encoded(prompt, 1)])
        memory = Memory(messages, prompt, int(time.time()), usage)
        others = [one for other, one in [*self.memories.items()] if other != name]
        if len(others) >= MEMORIES or sum(map(_frames, [*others, memory])) > MEMORY_FRAMES:
            raise UserError(
                f'There is room for {MEMORIES} memories with {MEMORY_FRAMES} images and frames together. Delete one.'
            )
        self.memories[name] = memory
        return name, memory

    def remember(self, memory: Memory) -> None:
        """Computes: reads examples, unless they are among the last ones that were read."""
        self.flamingo.remember(memory.prompt)

    def _memory(self, name: Any) -> Memory | None:
        if name is None:
            return None
        if not isinstance(name, str) or name not in self.memories:
            raise UserError(f'There is no memory {name!r}. POST its examples to /v1/memories first.')
        return self.memories[name]

    # ---- Scores

    def candidates(self, asked: Mapping[str, Any]) -> list[str]:
        """The candidates as texts that continue the prompt: to messages they are what the assistant might say."""
        given = asked.get('candidates')
        if not isinstance(given, list) or not 0 < len(given) <= CANDIDATES:
            raise UserError(f'candidates must be a list of 1 to {CANDIDATES} texts.')
        if not all(isinstance(one, str) and one for one in given):
            raise UserError('Candidates must be texts that are not empty.')
        return [answer_of([one], self.flamingo.tokenizer) for one in given] if 'messages' in asked else given

    def rank(self, prompt: Items, texts: list[str]) -> list[dict[str, Any]]:
        """Computes: (index, log-likelihood, probability among the candidates) of each, the likeliest first."""
        scores = self.flamingo.score(prompt, texts)
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        order = np.argsort(-scores, kind='stable').tolist()
        return [dict(index=i, log_likelihood=float(scores[i]), probability=float(shares[i])) for i in order]

    def examples(self, asked: Mapping[str, Any]) -> tuple[list[Image], list[str]]:
        """The images of a request's messages, and the label of each but the last. UserError if they have none."""
        if 'messages' not in asked:
            raise UserError('The nearest neighbour needs messages.')
        memory = self._memory(asked.get('memory'))
        messages = [*(memory.messages if memory else []), *read_messages(asked['messages'], self.images)]
        return examples_of(messages, self.flamingo.tokenizer)

    def nearest(self, images: list[Image], labels: list[str]) -> dict[str, Any]:
        """Computes a baseline: the label of the example whose frozen features are most similar to the last image's."""
        rows = np.stack([pooled(self.flamingo.features(x if x.ndim == 4 else x[None])) for x in images])
        cosines = (rows[:-1] @ rows[-1]).astype(float).tolist()
        return dict(label=nearest_neighbour(rows[-1], rows[:-1], labels), cosines=cosines)

    def likelihoods(self, prompt: Items, tokens: list[int], k: int) -> list[dict[str, Any]]:
        """Computes: the log-probability of each token of an answer, and the k likeliest tokens at its place."""
        if not tokens:
            return []
        found, tokenizer = self.flamingo.likelihoods(prompt, tokens, max(k, 1)), self.flamingo.tokenizer
        texts = [tokenizer.written(tokens[:i]) for i in range(len(tokens) + 1)]
        return [
            dict(
                token=texts[i + 1][len(texts[i]) :],
                logprob=float(found.written[i]),
                top=[(tokenizer.shown(int(t)), float(p)) for t, p in zip(likeliest[:k], their[:k], strict=True)],
            )
            for i, (likeliest, their) in enumerate(zip(found.likeliest, found.their, strict=True))
        ]

    def probability(self, prompt: Items, written: Written) -> float:
        """Computes the probability of a whole answer, at the bundle's temperature."""
        return float(self.flamingo.probabilities([prompt], [written])[0, 0])


def _conversation(images: int, flamingo: Pretrained) -> list[Message]:
    """A question about the last of so many images, each its own, and what is said of the others."""
    shape = flamingo.image_format.blank(1)[0].shape
    # No image of another size's prompt, which would be encoded already.
    shown = [np.random.default_rng((images, i)).integers(0, 256, shape, np.uint8) for i in range(images)]
    examples = [turn for image in shown[:-1] for turn in (Message('user', [image]), Message('assistant', ['a dog']))]
    return [*examples, Message('user', [*shown[-1:], 'What is it?'])]


def _frames(memory: Memory) -> int:
    """The images and frames of a memory."""
    shown = (item for message in memory.messages for item in message.items if not isinstance(item, str))
    return sum(1 if item.ndim == 3 else len(item) for item in shown)
