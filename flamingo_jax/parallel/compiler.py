"""What the compiler is told beside a program: options by which communication runs beside arithmetic.

They are taken because of what the compiled program shows (docs/scaling.md, "What the step waits for"); no step was
timed with them. Machines whose programs were not read with them get none. `LIBTPU_INIT_ARGS` is stronger: an option
that it names is left to it.
"""

import os

from jax.sharding import Mesh

# The beginnings of JAX's names of these machines: v5e alone. For v4 the compiler refuses the options.
KINDS = ('TPU v5 lite',)
# A sum over `tensor` goes on within the next products, as AsyncCollectiveStart and AsyncCollectiveDone in the program.
TPU = dict(
    xla_enable_async_all_reduce='true',
    xla_tpu_enable_async_collective_fusion='true',
    xla_tpu_enable_async_collective_fusion_fuse_all_reduce='true',
    xla_tpu_enable_async_collective_fusion_fuse_kloop_fusions='true',  # Elementwise work hides them, too.
    xla_tpu_enable_async_collective_fusion_multiple_steps='true',
    xla_tpu_overlap_compute_collective_tc='true',
)


def options(mesh: Mesh) -> dict[str, str]:
    """The options for a step on the devices of a mesh, as `jax.jit(compiler_options=)` takes them; {} for none."""
    if not mesh.devices.flat[0].device_kind.startswith(KINDS) or mesh.shape['tensor'] == 1:
        return {}
    given = os.environ.get('LIBTPU_INIT_ARGS', '')
    return {name: value for name, value in TPU.items() if f'{name}=' not in given}
