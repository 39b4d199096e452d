"""The gradient of depthwise convolutions on CPU: written out, against XLA's own of the same sum of shifted images.

    python -m benchmarks.depthwise

Prints CPU time as ratios, for a batch of 32 of the sizes that EfficientNet-Lite0 has at 96 pixels.
"""

import time

import jax

from flamingo_jax.model.vision.depthwise import depthwise_by_library, depthwise_by_shifts

SIZES = ((48, 32, 3, 1), (48, 96, 3, 2), (24, 144, 5, 2), (12, 240, 5, 1), (6, 672, 5, 1), (3, 1152, 3, 1))


def seconds(f, *args) -> float:
    """CPU time of a call, the mean of 5 after the first."""
    jax.block_until_ready(f(*args))
    begin = time.process_time()
    for _ in range(5):
        jax.block_until_ready(f(*args))
    return (time.process_time() - begin) / 5


def main() -> None:
    """A row for each size."""
    forms = dict(
        written=depthwise_by_shifts,
        shifts=depthwise_by_shifts.fun,  # Without the gradient that is written out.
        library=depthwise_by_library,
    )
    print('| pixels | channels | kernel | stride | XLA of shifts / written out | of the library / written out |')
    print('|---|---|---|---|---|---|')
    for height, channels, size, stride in SIZES:
        x = jax.random.normal(jax.random.key(0), (32, height, height, channels))
        kernel = jax.random.normal(jax.random.key(1), (size, size, 1, channels))
        taken = {}
        for name, form in forms.items():

            def loss(x, kernel, form=form, stride=stride):
                return (form(x, kernel, stride) ** 2).sum()

            taken[name] = seconds(jax.jit(jax.grad(loss, (0, 1))), x, kernel)
        ratios = ' | '.join(f'{taken[name] / taken["written"]:.1f}' for name in ('shifts', 'library'))
        print(f'| {height} | {channels} | {size} | {stride} | {ratios} |', flush=True)


if __name__ == '__main__':
    main()
