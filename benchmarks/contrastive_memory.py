"""Memory of a chip for the contrastive loss and its gradient: the ring, and the dense loss sharded by the compiler.

    pip install -e '.[plan]'
    python -m benchmarks.contrastive_memory [--batch=16384] [--rows=32] [--chips 8 64 512 1024] [--ring]

Compiled for TPU v4 by their own compiler; nothing is run. The towers are left out: `python -m flamingo_jax.plan
--config=experiments/contrastive_nfnet_f6.py --topology=v4:8x8x8` compiles the whole step.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from flamingo_jax.model.config import ContrastiveConfig
from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.planning import topology
from flamingo_jax.training.objectives.contrastive import dense, ring

SHAPES = {8: '2x2x2', 64: '4x4x4', 512: '8x8x8', 1024: '8x8x16'}


def temporaries(devices: list, batch: int, chunked: bool) -> float:
    """MB that a chip needs besides its vectors and their gradients."""
    mesh, c = make_mesh(devices=devices), ContrastiveConfig()
    rows = NamedSharding(mesh, PartitionSpec('data'))
    x = jax.ShapeDtypeStruct((batch, c.width), jnp.float32, sharding=rows)
    weight = jax.ShapeDtypeStruct((batch,), jnp.float32, sharding=rows)
    scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))

    def loss(images, texts, scale, weight):
        compare = functools.partial(ring, mesh=mesh) if chunked else dense
        return compare(c, images, texts, weight, scale, bias=jnp.zeros(()))[0]

    gradient = jax.jit(jax.grad(loss, (0, 1, 2)), out_shardings=(rows, rows, None))
    return gradient.lower(x, x, scale, weight).compile().memory_analysis().temp_size_in_bytes / 1e6


def main() -> None:
    """Prints a table for a fixed batch, and one for a fixed number of rows a chip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=int, default=16_384)
    parser.add_argument('--rows', type=int, default=32)
    parser.add_argument('--chips', type=int, nargs='*', choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument('--ring', action='store_true', help='leave the dense loss out')
    arguments = parser.parse_args()
    jax.config.update('jax_platforms', 'cpu')  # This process does not compute.
    kinds = ['ring, MB'] if arguments.ring else ['ring, MB', 'dense, MB']
    print(f'| chips | pairs | of a chip | {" | ".join(kinds)} |\n|---|---|---|{"---|" * len(kinds)}')
    for chips in arguments.chips:
        devices = topology.parse(f'v4:{SHAPES[chips]}').devices()
        for batch in (arguments.batch, arguments.rows * chips):
            sizes = [f'{temporaries(devices, batch, chunked=True):.1f}']
            sizes += [] if arguments.ring else [f'{temporaries(devices, batch, chunked=False):.1f}']
            print(f'| {chips:,} | {batch:,} | {batch // chips:,} | {" | ".join(sizes)} |', flush=True)


if __name__ == '__main__':
    main()
