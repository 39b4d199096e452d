"""What it costs to compare what several processes hold (`parallel/copies.py`): two processes on this machine.

    python -m benchmarks.copies [--rows=8] [--row_mb=1.5] [--parameters=100e6]

Each step compares the rows of a batch. Before each checkpoint the parameters are compared. The defaults are five
images of 320 pixels a row, and a hundred million float32 parameters, which both processes hold whole.

Measured on 2 cores of an EPYC that had other work, December 2026: 2.0 ms a step for the messages, 11 ms with the bytes
of 8 such rows (12 MB), and 0.62 s for the parameters (0.4 GB). The devices compute the step before meanwhile, so that a
step of more than this takes no longer. A TPU reads its part of the parameters once, at the speed of its memory.
"""

import argparse
import multiprocessing
import time


def of_process(index: int, port: int, arguments: argparse.Namespace) -> None:
    """Compares in one of the two processes; the first prints."""
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from flamingo_jax.parallel import copies, mesh, processes

    processes.join(f'localhost:{port}', 2, index)
    devices = mesh.make_mesh(data=1, fsdp=1, tensor=2)
    batch = np.random.default_rng(0).integers(0, 256, (arguments.rows, int(arguments.row_mb * 1e6)), np.uint8)
    for name, some in (('one byte of each', batch[:, :1]), ('whole rows', batch)):
        shared = copies.Rows(dict(a=arguments.rows), mesh.batch_sharding(devices))
        shared.check(1, dict(a=some))
        began = time.perf_counter()
        for step in range(2, 52):
            shared.check(step, dict(a=some))
        processes.say(f'{1e3 * (time.perf_counter() - began) / 50:.2f} ms a step for {arguments.rows} rows, {name}')
    whole = NamedSharding(devices, PartitionSpec())
    values = np.zeros(int(arguments.parameters), np.float32)
    params = dict(kernel=jax.make_array_from_callback(values.shape, whole, lambda at: values[at]))
    copies.check(params)  # Compiles.
    began = time.perf_counter()
    copies.check(params)
    took = time.perf_counter() - began
    processes.say(f'{took:.2f} s for {values.nbytes / 1e9:.1f} GB of parameters, {values.nbytes / 1e9 / took:.1f} GB/s')


def main() -> None:
    """Starts the two processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', type=int, default=8, help='of each batch')
    parser.add_argument('--row_mb', type=float, default=1.5, help='MB of a row')
    parser.add_argument('--parameters', type=float, default=100e6)
    arguments = parser.parse_args()
    from tests.tiny_run import free_port

    port, context = free_port(), multiprocessing.get_context('spawn')
    both = [context.Process(target=of_process, args=(i, port, arguments)) for i in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()


if __name__ == '__main__':
    main()
