"""A Flamingo in lmms-eval, whose tasks it also gives examples with their images.

    lmms-eval --model flamingo_jax --tasks vizwiz_vqa_val --batch_size 8 \
        --model_args 'checkpoint=BUNDLE,shots=4,prompt=Question: {question} Answer:'

lmms-eval's own examples (`--num_fewshot`) are texts without images. With `shots`, each question comes after so many
other documents of its data set, each with its images, its text and its answer, as a Flamingo is prompted.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from lmms_eval.api.instance import GenerationResult, Instance  # pyright: ignore[reportMissingImports]  # It imports this.
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]  # It imports this.
from tqdm import tqdm

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.published import most_frequent
from flamingo_jax.inference.pretrained import load
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inputs.prompts import encode_prompt, is_continued
from flamingo_jax.inputs.videos import to_video
from flamingo_jax.parallel import mesh as meshes

TAG = re.compile(r'<image(?: ?(\d+))?>')  # Where some tasks want an image in their text.
BLANK = np.zeros((1, 1, 1), np.float32)  # Any image, where only the number of tokens matters.
A_SECOND = 3  # Fewest frames a second of a video (paper, appendix B.1.2).

Doc = dict[str, Any]


class Place(NamedTuple):
    """Where a document is."""

    task: str
    split: str
    number: int


class FlamingoJax(lmms):
    """See the head of this file. It runs in one process, whose devices may form a mesh."""

    def __init__(
        self,
        checkpoint: str,
        lm: str = '',
        batch_size: int | str | None = 1,
        shots: int | float = 0,
        support: str = '',
        answer: str = '',
        seed: int | float = 0,
        prompt: str = '',
        frames: int | float = 30,
        data: int | float = 1,
        fsdp: int | float = 1,
        tensor: int | float = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
    ):
        """Loads the model. lmms-eval gives the values of --model_args, --batch_size and --device.

        Args:
          checkpoint, lm: as for `flamingo_jax.load`.
          batch_size: prompts at a time.
          shots: examples before each question, with their images.
          support: the split that they are drawn from; '' is the task's training split, or a split `train`, or else the
            split that is asked. No example shows an image of the question.
          answer: the field of a document that holds its answer; '' is what the task says, or else `answers`. Of
            several answers, an example shows the most frequent one.
          seed: draws the examples of each question.
          prompt: how a question is written, with {question} in its place and without the texts that the task puts
            around it; '' is as the task writes it.
          frames: of a video (paper: 30).
          data, fsdp, tensor: the mesh, as for `flamingo_jax.parallel.mesh.make_mesh`.
          device, max_batch_size: not used; JAX chooses the device.

        Raises:
          FileNotFoundError, ValueError: as for `flamingo_jax.load`; or the batch size or the shots are not possible.
        """
        super().__init__()
        del device, max_batch_size
        # lmms-eval reads -1 as a float.
        shots, seed, frames, data, fsdp, tensor = map(int, (shots, seed, frames, data, fsdp, tensor))
        if not str(batch_size or 1).isdigit() or int(batch_size or 1) < 1:
            raise UserError(f'batch_size is {batch_size}. It must be a number from 1.')
        if shots < 0:
            raise UserError(f'shots is {shots}. It must be 0 or more.')
        mesh = None if data == fsdp == tensor == 1 else meshes.make_mesh(data=data, fsdp=fsdp, tensor=tensor)
        self._flamingo = load(checkpoint, mesh, lm=lm)
        self._batch_size, self._shots, self._seed = int(batch_size or 1), shots, seed
        self._support, self._answer, self._frames = support, answer, frames
        self._template = prompt

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """An answer to each request, decoded as its task says, up to <EOC> or the task's own ends.

        It has 32 tokens where the task does not say, and never more than the context has room for.

        Raises:
          ValueError: a prompt exceeds the context. It is found before any answer is given, unless it shows more
            images than the first document of its task.
        """
        self._refuse_long(requests)
        answers = []
        with tqdm(total=len(requests), unit=' answers') as progress:
            for _, same in itertools.groupby(requests, key=lambda request: repr(request.args[1])):
                same = list(same)
                for begin in range(0, len(same), self._batch_size):
                    some = same[begin : begin + self._batch_size]
                    answers += self._generate([self.prompt(request) for request in some], some[0].args[1])
                    progress.update(len(some))
        return answers

    def _generate(self, prompts: Sequence[list[Any]], settings: dict[str, Any]) -> list[str]:
        room = self._flamingo.config.lm.context - max(map(self._tokens, prompts))
        until, beams = settings.get('until') or (), int(settings.get('num_beams') or 1)
        sampled = settings.get('do_sample', True) and beams == 1
        sampling = Sampling(
            max_new_tokens=max(1, min(int(settings.get('max_new_tokens') or 32), room)),
            num_beams=beams,
            temperature=float(settings.get('temperature') or 0) if sampled else 0.0,
            top_p=float(settings.get('top_p') or 1) if sampled else 1.0,
            stop=(self._flamingo.tokenizer.chunk_end, *([until] if isinstance(until, str) else until)),
            seed=self._seed,
        )
        answers: Any = self._flamingo.answer(prompts, sampling)
        return answers

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """For each continuation its negative log-likelihood a token, and whether greedy decoding writes it.

        lmms-eval takes the smallest of several: its own models give their loss. Each pair is in a `GenerationResult`,
        since version 0.7.3 makes a text of any other.

        Raises:
          ValueError: as for `generate_until`; a continuation counts as a part of the prompt.
        """
        encode = self._flamingo.tokenizer.encode
        self._refuse_long(requests, self._flamingo.room('', map(self._continuation, requests)))
        found = []
        with tqdm(total=len(requests), unit=' continuations') as progress:
            for _, same in itertools.groupby(requests, key=lambda request: (request.args[0], *request.args[3:])):
                same = list(same)  # The continuations of one prompt.
                prompt, texts = self.prompt(same[0]), [self._continuation(request) for request in same]
                ids = [encode(text, is_continued(prompt, self._flamingo.tokenizer)) for text in texts]
                losses = -self._flamingo.score(prompt, texts) / [len(row) for row in ids]
                *_, greedy = self._flamingo.write(prompt, Sampling(self._flamingo.room(prompt, texts), stop=()))
                found += [
                    GenerationResult((float(loss), greedy.tokens[: len(row)] == row))
                    for loss, row in zip(losses, ids, strict=True)
                ]
                progress.update(len(same))
        return found

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """NotImplementedError: a Flamingo holds no conversation."""
        raise NotImplementedError('flamingo_jax does not do tasks that ask in several rounds.')

    def prompt(self, request: Instance, shots: int | None = None, blank: int | None = None) -> list[Any]:
        """The prompt of a request: the examples, then the document's images and its text.

        Args:
          request: of lmms-eval, for a model that is not a chat.
          shots: other than those of the model.
          blank: reads no images, and puts so many blank ones in the place of each document's.

        Raises:
          ValueError: the task does not say how its documents are read, or what an example answers.
        """
        text, to_visuals, place = request.args[0], request.args[2], _place(request)
        task = getattr(to_visuals, '__self__', None)
        shots = self._shots if shots is None else shots
        if task is None and (shots or self._template):
            raise UserError(f'Task {place.task} does not say how its documents are read: leave out shots and prompt.')
        if task is not None and task.config.num_fewshot:
            raise UserError(
                'The examples of --num_fewshot have no images. Leave it out, and give '
                f'shots={task.config.num_fewshot} in --model_args.'
            )
        literal, prompt = self._flamingo.tokenizer.literal, []
        asked = [BLANK] * blank if blank is not None else self._visuals(to_visuals, place)
        for example, shown in self._examples(task, place, asked, blank) if shots else ():
            prompt += interleaved(shown, self._text(task, example), literal)
            prompt[-1] += literal(f' {self._answer_of(task, example)}') + self._flamingo.tokenizer.chunk_end
            shots -= 1
            if not shots:
                break
        else:
            if shots:
                raise UserError(f'Task {place.task} has {shots} documents too few for the examples. Use fewer shots.')
        return prompt + interleaved(asked, self._text(task, place) if self._template else text, literal)

    def _examples(
        self, task: Any, place: Place, asked: Sequence[Any], blank: int | None
    ) -> Iterator[tuple[Place, list[Any]]]:
        """The documents of the support split in random order, with their images, none of which is asked about."""
        splits = self.task_dict[place.task]
        usual = (task.config.training_split, 'train', place.split)
        split = self._support or next(split for split in usual if split in splits)
        if split not in splits:
            raise UserError(f'Task {place.task} has no split {split!r}. Its splits are {sorted(splits)}.')
        seen = {_key(image) for image in asked}
        for number in in_random_order(np.random.default_rng((self._seed, place.number)), len(splits[split])):
            example = Place(place.task, split, number)
            if example == place:
                continue
            shown = [BLANK] * blank if blank is not None else self._visuals(task.doc_to_visual, example)
            if blank is not None or seen.isdisjoint(map(_key, shown)):
                yield example, shown

    def _visuals(self, to_visuals: Callable[[Doc], Sequence[Any] | None], place: Place) -> list[Any]:
        """The images and videos of a document."""
        return [
            self._image(one, place) for one in to_visuals(self.task_dict[place.task][place.split][place.number]) or ()
        ]

    def _image(self, visual: Any, place: Place) -> Any:
        if isinstance(visual, PIL.Image.Image):
            return visual
        if isinstance(visual, str) and os.path.isfile(visual):
            image_format = self._flamingo.image_format
            return to_video(visual, self._frames, image_format.size, image_format.fit, apart=1 / A_SECOND)
        raise UserError(
            f'Document {place.number} of {place.task} shows {str(visual)[:80]!r}, which is neither an image nor the '
            'file of a video.'
        )

    def _text(self, task: Any, place: Place) -> str:
        """A document's question, written as `prompt` or the task says."""
        doc = task.dataset_no_image[place.split][place.number]
        if not self._template:
            return task.doc_to_text(doc)
        around = task.lmms_eval_specific_kwargs
        if callable(task.config.doc_to_text) and around is not None:
            question = task.config.doc_to_text(doc, {**around, 'pre_prompt': '', 'post_prompt': ''})
        else:
            question = task.doc_to_text(doc)
        return self._template.replace('{question}', str(question).strip())

    def _answer_of(self, task: Any, place: Place) -> str:
        """What an example shows as its answer."""
        doc, field = task.dataset_no_image[place.split][place.number], task.config.doc_to_target
        if self._answer or (isinstance(field, str) and field.isidentifier() and field not in doc):
            # Many tasks of lmms-eval name a field that their documents do not have, since they score otherwise.
            field = self._answer or 'answers'
            if field not in doc:
                raise UserError(
                    f'Task {place.task} has no field {field!r}. Its fields are {sorted(doc)}: give the one that holds '
                    'the answer as answer=FIELD in --model_args.'
                )
            found = doc[field]
        else:
            found = task.doc_to_target(doc)
        if isinstance(found, int) and task.config.doc_to_choice is not None:
            found = task.doc_to_choice(doc)[found]
        several = (
            [one['answer'] if isinstance(one, dict) else one for one in found] if isinstance(found, list) else [found]
        )
        if not several:
            raise UserError(f'Document {place.number} of {place.task} has no answer, so that it cannot be an example.')
        return str(most_frequent(several)).strip()

    def _continuation(self, request: Instance) -> str:
        """The text whose likelihood is asked."""
        text, place = request.args[1], _place(request)
        return text if isinstance(text, str) else f' {text(self.task_dict[place.task][place.split][place.number])}'

    def _tokens(self, prompt: Sequence[Any]) -> int:
        without = [item if isinstance(item, str) else BLANK for item in prompt]
        return len(encode_prompt(without, self._flamingo.tokenizer, self._flamingo.image_format)[0])

    def _refuse_long(self, requests: Sequence[Instance], room: int = 1) -> None:
        """ValueError if a prompt leaves no such room for its answer, with the images of a task's first document."""
        context = self._flamingo.config.lm.context
        for name, some in itertools.groupby(requests, key=lambda request: request.args[4]):
            some = list(some)
            blank = len(self._visuals(some[0].args[2], _place(some[0])))
            if (tokens := self._longest(some, self._shots, blank)) + room <= context:
                continue
            fewer = range(self._shots - 1, -1, -1)
            fits = next((shots for shots in fewer if self._longest(some, shots, blank) + room <= context), None)
            raise UserError(
                f'Task {name}: a prompt of {tokens} tokens with {self._shots} shots leaves no room for an answer in '
                f'the context of {context} tokens. '
                + ('Evaluate a model with a longer one.' if fits is None else f'At most {fits} shots fit.')
            )

    def _longest(self, requests: Sequence[Instance], shots: int, blank: int) -> int:
        return max(self._tokens(self.prompt(request, shots, blank)) for request in requests)


def _place(request: Instance) -> Place:
    number, task, split = request.args[3:6]
    return Place(task, split, number)


def in_random_order(rng: np.random.Generator, n: int) -> Iterator[int]:
    """All numbers below n, drawn one by one: of a large set, few are looked at."""
    drawn = set()
    while len(drawn) < n:
        number = int(rng.integers(n))
        if number not in drawn:
            drawn.add(number)
            yield number


def interleaved(shown: Sequence[Any], text: str, literal: Callable[[str], str]) -> list[Any]:
    """Images and text in reading order: the images where the text has their tags, or else all before it.

    It ends with a text. `literal` makes the text of a data set a part of a prompt.
    """
    tags = list(TAG.finditer(text))
    if len(tags) != len(shown):
        return [*shown, literal(_spaced(text))]
    items, begin = [], 0
    for i, tag in enumerate(tags):
        if before := text[begin : tag.start()].strip():
            items.append(literal(_spaced(before)))
        number = int(tag[1] or 0) - 1
        items.append(shown[number if 0 <= number < len(shown) else i])
        begin = tag.end()
    return [*items, literal(_spaced(text[begin:]))]


def _spaced(text: str) -> str:
    """A text with the space that stands between an image and its text (paper, figure 8)."""
    return text if not text or text[0].isspace() else f' {text}'


def _key(image: Any) -> bytes:
    """Identifies an image by its pixels."""
    return image.tobytes()
