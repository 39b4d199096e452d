"""Answers a prompt of pictures and text, in the order given.

    python -m flamingo_jax.generate --checkpoint=BUNDLE --image=A.png --text=" dax<EOC>" --image=B.png

An image of several frames is a video: --image=a.png,b.png,c.png. A model that one device cannot hold is cut over several:
--mesh=data,fsdp,tensor, as --mesh=1,4,1.
"""

import pathlib
import sys

import jax
from absl import app, flags, logging

from flamingo_jax.inference import pretrained
from flamingo_jax.parallel import mesh as meshes


def ordered_prompt(argv: list[str]) -> list:
    """The --image and --text arguments of a command line, in their order, as a prompt.

    Raises:
      FileNotFoundError: an image is not there.
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
        paths = [pathlib.Path(path) for path in value.split(',')]
        if missing := [str(path) for path in paths if not path.is_file()]:
            raise FileNotFoundError(f'No picture at {missing[0]}.')
        prompt.append(paths[0] if len(paths) == 1 else paths)
    return prompt


def mesh_of(sizes: list[str]) -> jax.sharding.Mesh | None:
    """The mesh of --mesh, None without; ValueError if these are not three numbers, or not of the devices there are."""
    if not sizes:
        return None
    if len(sizes) != len(meshes.AXES) or not all(size.lstrip('-').isdecimal() for size in sizes):
        raise ValueError(f'--mesh is {",".join(meshes.AXES)}, three numbers such as 1,4,1, and not {",".join(sizes)}.')
    return meshes.make_mesh(*map(int, sizes))


def main(argv):
    """Reads the flags and prints the answer."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells its every step.
    prompt = ordered_prompt(sys.argv[1:])
    if len(argv) > 1 or not prompt:
        raise app.UsageError(f'Give a prompt with --image and --text; left over: {argv[1:]}.')
    f = flags.FLAGS
    model = pretrained.load(f.checkpoint, mesh_of(f.mesh))
    print(
        model.generate(
            prompt,
            f.max_new_tokens,
            f.num_beams,
            f.temperature,
            f.top_k,
            f.top_p,
            seed=f.seed,
        )
    )


if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', None, 'A bundle, or the workdir of a run.', required=True)
    flags.DEFINE_multi_string('image', [], 'A picture, or the frames of a video separated by commas. May be repeated.')
    flags.DEFINE_multi_string('text', [], 'A piece of text. May be repeated; the order of all is kept.')
    flags.DEFINE_list('mesh', [], 'Devices along data, fsdp and tensor; one may be -1. Without it, one device.')
    flags.DEFINE_integer('max_new_tokens', 32, 'At most so many tokens.')
    flags.DEFINE_integer('num_beams', 1, 'Beam search with so many beams.')
    flags.DEFINE_float('temperature', 0.0, '0 is greedy.')
    flags.DEFINE_integer('top_k', 0, 'Sample from the k likeliest tokens; 0 is all.')
    flags.DEFINE_float('top_p', 1.0, 'Sample from the likeliest tokens of this total probability.')
    flags.DEFINE_integer('seed', 0, 'Of sampling.')
    app.run(main)
