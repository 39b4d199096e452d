"""Continues a prompt of images and text, in the given order.

    python -m flamingo_jax.generate --checkpoint=BUNDLE --image=A.png --text=" dax<EOC>" --image=B.png

With --chat, it is what a user asks of a model that chats: --chat --image=A.png --text=" Tell me about it." A terminal
shows the answer while it is written. One that --max_new_tokens cuts ends with […], and the command says so.

An image of several frames is a video: --image=a.png,b.png,c.png. To shard a model that is too large for
one device: --mesh=data,fsdp,tensor, for example --mesh=1,4,1.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', None, 'A bundle, or the workdir of a run.', required=True)
    flags.DEFINE_string('lm', '', 'Bundle of the language model, if the checkpoint is a bundle without one.')
    flags.DEFINE_multi_string('image', [], 'An image, or the frames of a video separated by commas.')
    flags.DEFINE_multi_string('text', [], 'A piece of text. The order of all images and texts is kept.')
    flags.DEFINE_boolean(
        'chat', False, 'The prompt is what a user asks in a chat (SmolLM2, Qwen, LLaVA 1.5, Llama 3.2 Vision).'
    )
    flags.DEFINE_integer(
        'max_new_tokens',
        None,
        'Most tokens to generate; default: 32, or with --chat 256 or as many as fit the context.',
        lower_bound=1,
    )
    flags.DEFINE_integer('num_beams', 1, 'Number of beams; 1 is no beam search.', lower_bound=1)
    flags.DEFINE_float('temperature', 0.0, '0 is greedy.', lower_bound=0)
    flags.DEFINE_integer('top_k', 0, 'Sample from the k likeliest tokens; 0 is all.', lower_bound=0)
    flags.DEFINE_float(
        'top_p', 1.0, 'Sample from the likeliest tokens of this total probability.', lower_bound=0, upper_bound=1
    )
    flags.DEFINE_integer('seed', 0, 'Of sampling.', lower_bound=-(2**63), upper_bound=2**63 - 1)
    commands.define_dtype()
    commands.define_mesh('Devices over which to shard the model and its prompts; default: one device.')
    commands.start(__doc__)

import dataclasses
import io
import os
import pathlib
import sys
from collections.abc import Iterable

from flamingo_jax.inference import pretrained
from flamingo_jax.inference.pretrained import Written
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.prompts import chat, dialogue_of, encode_prompt
from flamingo_jax.parallel import mesh as meshes

ANSWER, CHAT = 32, 256  # Tokens by default, of an answer and of one in a chat.
CUT = '[…]'  # Ends an answer in a chat that is cut.


def ordered_prompt(argv: list[str]) -> list:
    """The --image and --text arguments of a command line, in their order, as a prompt.

    Raises:
      FileNotFoundError: an image is missing.
    """
    prompt, arguments = [], iter(argv)
    for argument in arguments:
        name, equals, value = argument.lstrip('-').partition('=')
        if not argument.startswith('-') or name not in ('image', 'text'):
            continue
        value = value if equals else next(arguments, '')
        if name == 'text':
            prompt.append(value)
            continue
        paths = [pathlib.Path(os.path.expanduser(path)) for path in value.split(',')]  # A shell leaves the ~ of =~.
        if missing := [str(path) for path in paths if not path.is_file()]:
            raise FileNotFoundError(f'There is no image {missing[0]}.')
        prompt.append(paths[0] if len(paths) == 1 else paths)
    return prompt


def show(written: Iterable[Written], out: io.TextIOBase, at_once: bool) -> Written:
    """Writes an answer to `out`, without an end of line, and returns the whole of it.

    Args:
      written: the answer so far after each token (`Pretrained.write`).
      at_once: True writes each token as it comes, which beams might still replace; False the whole at the end.
    """
    shown, last = '', Written('', [])
    for last in written:
        if at_once and last.text.startswith(shown):
            out.write(last.text[len(shown) :])
            out.flush()
            shown = last.text
    out.write(last.text[len(shown) :])
    return last


def main() -> None:
    """Prints the answer."""
    prompt = ordered_prompt(sys.argv[1:])
    if not prompt:
        commands.refuse('There is no prompt. Give images and texts in order, with --image=FILE and --text="...".')
    f = flags.FLAGS
    numbers = f.num_beams, f.temperature, f.top_k, f.top_p
    sampling = Sampling(f.max_new_tokens or ANSWER, *numbers, seed=f.seed)  # Refuses before the model is read.
    tokenizer = pretrained.tokenizer_of(f.checkpoint, f.lm)
    if f.chat:
        if (marks := dialogue_of(tokenizer)) is None:
            commands.refuse(f'{f.checkpoint} does not chat: its tokenizer has no <|im_start|>. Leave out --chat.')
        prompt = chat(prompt, marks=marks)
    tokens, _ = encode_prompt(prompt, tokenizer, ImageFormat(1))  # Refuses, too, at the least cost.
    mesh = meshes.make_mesh(**meshes.parse(f.mesh)) if f.mesh else None
    model = pretrained.load(f.checkpoint, mesh, dtype=f.dtype, lm=f.lm)
    if f.chat and f.max_new_tokens is None:
        room = max(1, min(CHAT, model.config.lm.context - len(tokens)))
        sampling = dataclasses.replace(sampling, max_new_tokens=room)
    written = model.write(prompt, sampling)
    answer = show(written, sys.stdout, at_once=sys.stdout.isatty() and f.num_beams == 1)
    room = sampling.max_new_tokens
    cut = f.chat and len(answer.tokens) == room
    print(f' {CUT}' if cut else '', flush=True)
    if cut:
        print(f'Cut after {room} tokens. --max_new_tokens=N writes up to N.', file=sys.stderr)


if __name__ == '__main__':
    main()
