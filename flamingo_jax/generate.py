"""Continues a prompt of pictures and text, in the given order.

    python -m flamingo_jax.generate --checkpoint=BUNDLE --image=A.png --text=" dax<EOC>" --image=B.png

With --chat, it is what a user asks of a model that chats: --chat --image=A.png --text=" Tell me about it."

An image of several frames is a video: --image=a.png,b.png,c.png. To shard a model that is too large for
one device: --mesh=data,fsdp,tensor, for example --mesh=1,4,1.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', None, 'A bundle, or the workdir of a run.', required=True)
    flags.DEFINE_string('lm', '', 'Bundle of the language model, if the checkpoint is a bundle without one.')
    flags.DEFINE_multi_string('image', [], 'A picture, or the frames of a video separated by commas.')
    flags.DEFINE_multi_string('text', [], 'A piece of text. The order of all pictures and texts is kept.')
    flags.DEFINE_boolean('chat', False, 'The prompt is what a user asks in a chat (ChatML: SmolLM2, Qwen).')
    flags.DEFINE_integer('max_new_tokens', 32, 'Most tokens to generate.', lower_bound=1)
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

import os
import pathlib
import sys

from flamingo_jax.inference import pretrained, search
from flamingo_jax.inputs.images import PictureFormat
from flamingo_jax.inputs.prompts import chat, chats, encode_prompt
from flamingo_jax.parallel import mesh as meshes


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
            raise FileNotFoundError(f'There is no picture {missing[0]}.')
        prompt.append(paths[0] if len(paths) == 1 else paths)
    return prompt


def main() -> None:
    """Prints the answer."""
    prompt = ordered_prompt(sys.argv[1:])
    if not prompt:
        commands.refuse('There is no prompt. Give pictures and texts in order, with --image=FILE and --text="...".')
    f = flags.FLAGS
    search.way(f.num_beams, f.temperature, f.top_k, f.top_p, length_penalty=0.0)  # Refuses before the model is read.
    tokenizer = pretrained.tokenizer_of(f.checkpoint, f.lm)
    if f.chat and not chats(tokenizer):
        commands.refuse(f'{f.checkpoint} does not chat: its tokenizer has no <|im_start|>. Leave out --chat.')
    prompt = chat(prompt) if f.chat else prompt
    encode_prompt(prompt, tokenizer, PictureFormat(1))  # Refuses, too, at the least cost.
    mesh = meshes.make_mesh(**meshes.parse(f.mesh)) if f.mesh else None
    model = pretrained.load(f.checkpoint, mesh, dtype=f.dtype, lm=f.lm)
    print(
        model.generate(
            prompt,
            f.max_new_tokens,
            f.num_beams,
            temperature=f.temperature,
            top_k=f.top_k,
            top_p=f.top_p,
            seed=f.seed,
        )
    )


if __name__ == '__main__':
    main()
