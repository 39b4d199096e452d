"""The kernel of attention beside the plain function, at the 3B's shapes: forward and backward, in bfloat16.

python -m benchmarks.attention                      times both on a GPU or a TPU of this machine
python -m benchmarks.attention --topology=v5e-1     compiles both for a TPU, and compares their temporary memory
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from flamingo_jax.model import attention
from flamingo_jax.model.attention import Segments, attend, kernel_of
from flamingo_jax.planning import topology


class Shape(NamedTuple):
    """b rows of l queries and m keys, with 16 heads of 128."""

    b: int
    l: int
    m: int
    mask: str = ''  # '' is none; 'images' shows a query 64 of the keys, 'documents' is causal within 256.


SHAPES = {
    'pages see images': Shape(8, 1024, 640, 'images'),
    'pairs see images': Shape(16, 128, 512, 'images'),
    'resampler, images': Shape(64, 64, 164),
    'resampler, videos': Shape(8, 64, 864),
    'packed text': Shape(8, 1024, 1024, 'documents'),
}


def program(shape: Shape, kernel: str) -> tuple[Callable, list[jax.ShapeDtypeStruct]]:
    """Values and gradients of one call, and the shapes of its arguments."""

    def run(q, k, v):
        rows = jnp.broadcast_to(jnp.arange(shape.l), (shape.b, shape.l))
        mask = None
        if shape.mask == 'images':
            mask = Segments(rows * (shape.m // 64 + 1) // shape.l, jnp.arange(shape.m)[None] // 64 + 1)
        elif shape.mask:
            mask = Segments(rows // 256, rows // 256, causal=True)
        return jax.value_and_grad(
            lambda *qkv: attend(*qkv, mask, kernel=kernel).astype(jnp.float32).sum(), argnums=(0, 1, 2)
        )(q, k, v)

    q, k = (shape.b, shape.l, 16, 128), (shape.b, 16, shape.m, 128)
    return jax.jit(run), [jax.ShapeDtypeStruct(x, jnp.bfloat16) for x in (q, k, k)]


def seconds(shape: Shape, kernel: str, repeats: int) -> float:
    """The median of some calls."""
    run, shapes = program(shape, kernel)
    arguments = [jax.random.normal(jax.random.key(i), x.shape, x.dtype) for i, x in enumerate(shapes)]
    times = []
    for _ in range(repeats + 2):  # The first two warm up.
        since = time.perf_counter()
        jax.block_until_ready(run(*arguments))
        times.append(time.perf_counter() - since)
    return statistics.median(times[2:])


def temporaries(shape: Shape, kernel: str, device: jax.Device) -> int:
    """Bytes that the compiled program keeps beside its arguments and results."""
    run, shapes = program(shape, kernel)
    placed = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=SingleDeviceSharding(device)) for x in shapes]
    return run.lower(*placed).compile().memory_analysis().temp_size_in_bytes


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--topology', default='', help='a TPU to compile for, such as v5e-1 or v4:1x1x1')
    parser.add_argument('--repeats', type=int, default=20, help='number of calls for the median')
    help_least = 'fewest queries and keys for which splash is taken; 1 shows what padding to its blocks costs'
    parser.add_argument('--least', type=int, default=attention.LEAST, help=help_least)
    arguments = parser.parse_args()
    attention.LEAST = arguments.least
    if arguments.topology:
        (device,) = topology.parse(arguments.topology).devices()
        kernel, of, unit = 'splash', lambda shape, kernel: temporaries(shape, kernel, device) / 1e6, 'MB'
    elif (kernel := kernel_of(jax.devices()[0])) != 'plain':
        unit = 'ms'
        of = lambda shape, kernel: seconds(shape, kernel, arguments.repeats) * 1e3  # noqa: E731
    else:
        parser.error('this machine has no TPU, and no GPU that cuDNN takes. Give a --topology to compile for')
    print(f'{"":20} {"b":>4} {"l":>5} {"m":>5} {"plain, " + unit:>12} {kernel + ", " + unit:>12} {"ratio":>7}')
    for name, shape in SHAPES.items():
        plain, fused = of(shape, 'plain'), of(shape, kernel)
        ratio = f'{plain / fused:7.2f}' if fused else '-'
        print(f'{name:20} {shape.b:4} {shape.l:5} {shape.m:5} {plain:12.2f} {fused:12.2f} {ratio:>7}')


if __name__ == '__main__':
    main()
