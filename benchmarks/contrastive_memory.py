"""Memory of a chip for the contrastive loss and its gradient: the ring, and the dense loss sharded by the compiler.

    pip install -e '.[plan]'
    python benchmarks/contrastive_memory.py [--batch=16384] [--rows=32]

Compiled for TPU v4 by their own compiler; nothing is run. The towers are left out: `python -m flamingo_jax.plan
--config=experiments/contrastive_nfnet_f6.py --topology=v4:8x8x8` compiles the whole step.
"""

import argparse

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from flamingo_jax.model.config import ContrastiveConfig
from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.planning import topology
from flamingo_jax.training.losses.contrastive import dense, ring

SHAPES = {8: '2x2x2', 64: '4x4x4', 512: '8x8x8', 1024: '8x8x16'}


def temporaries(devices: list, batch: int, chunked: bool) -> float:
    """MB that a chip needs besides its vectors and their gradients."""
    mesh, c = make_mesh(devices=devices), ContrastiveConfig()
    rows = NamedSharding(mesh, PartitionSpec('data'))
    x = jax.ShapeDtypeStruct((batch, c.width), jnp.float32, sharding=rows)
    weight = jax.ShapeDtypeStruct((batch,), jnp.float32, sharding=rows)
    scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))

    def loss(pictures, texts, scale, weight):
        if chunked:
            return ring(c, pictures, texts, weight, scale, mesh=mesh)[0]
        return dense(c, pictures, texts, weight, scale)[0]

    gradient = jax.jit(jax.grad(loss, (0, 1, 2)), out_shardings=(rows, rows, None))
    return gradient.lower(x, x, scale, weight).compile().memory_analysis().temp_size_in_bytes / 1e6


def main() -> None:
    """Prints a table for a fixed batch, and one for a fixed number of rows a chip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=int, default=16_384)
    parser.add_argument('--rows', type=int, default=32)
    arguments = parser.parse_args()
    jax.config.update('jax_platforms', 'cpu')  # This process does not compute.
    print('| chips | pairs | of a chip | ring, MB | dense, MB |\n|---|---|---|---|---|')
    for chips, shape in SHAPES.items():
        devices = topology.parse(f'v4:{shape}').devices()
        for batch in (arguments.batch, arguments.rows * chips):
            sizes = [temporaries(devices, batch, chunked) for chunked in (True, False)]
            print(f'| {chips:,} | {batch:,} | {batch // chips:,} | {sizes[0]:.1f} | {sizes[1]:.1f} |', flush=True)


if __name__ == '__main__':
    main()
