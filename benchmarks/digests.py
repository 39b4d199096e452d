"""How fast files are verified (`parallel/digests.py`) on this machine, from its memory.

    python -m benchmarks.digests [--gb=1]

Measured on 2 cores of an EPYC that had other work, December 2026: 2.2 GB/s with both.
"""

import argparse
import os
import pathlib
import tempfile
import time

from flamingo_jax.parallel import digests


def main() -> None:
    """Writes files of 256 MiB, and verifies them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--gb', type=float, default=1)
    number = max(1, round(parser.parse_args().gb * 1e9 / 2**28))
    with tempfile.TemporaryDirectory() as folder:
        for i in range(number):
            pathlib.Path(folder, str(i)).write_bytes(os.urandom(2**28))
        file = pathlib.Path(folder, digests.FILE)
        digests.write(file, digests.of_folder(file.parent))
        began = time.perf_counter()
        digests.verify(file, '')
        rate = number * 2**28 / 1e9 / (time.perf_counter() - began)
    print(f'{rate:.1f} GB/s with {os.cpu_count()} cores')


if __name__ == '__main__':
    main()
