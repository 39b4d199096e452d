"""Operations of a step of Flamingo-3B by formula: the paper's batch one document a row, packed, and what is of use.

    python -m benchmarks.padding

Nothing is computed. The lengths are those of the sets at hand: pages fill 256 tokens and show 1.25 to 2.2 images;
the texts of ALIGN and videos have 18 tokens with their tags, those of LTIP 27.
"""

import dataclasses

from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.model.config import SIZES, FlamingoConfig
from flamingo_jax.planning import flops
from flamingo_jax.planning.topology import CHIPS
from flamingo_jax.training import config as training

TRAINED = ('resampler', 'xattn', 'extra_tokens')
# (Documents, tokens of each, tokens that are no targets: <BOS> and a tag of three.)
DOCUMENTS = dict(m3w=(256, 256, 6), align=(512, 18, 4), ltip=(512, 27, 4), vtp=(64, 18, 4))


def alone(sources: dict[str, Source]) -> dict[str, Source]:
    """The same documents, one a row."""
    rows = dict(m3w=(256, 5), align=(32, 1), ltip=(64, 1), vtp=(32, 1))
    return {
        name: dataclasses.replace(
            source, lines=1, documents=1, batch_size=DOCUMENTS[name][0], length=rows[name][0], images=rows[name][1]
        )
        for name, source in sources.items()
    }


def of_use(config: FlamingoConfig, sources: dict[str, Source], images: float) -> float:
    """Operations on what is no padding, with so many images a page."""
    total = 0.0
    for name, (number, tokens, silent) in DOCUMENTS.items():
        counts = dict(
            documents=number,
            tokens=number * tokens,
            targets=number * (tokens - silent),
            images=number * (images if name == 'm3w' else 1),
        )
        work = flops.useful(config, sources[name], counts)
        total += flops.operations(config, TRAINED, sources[name], work)['total']
    return total


def main() -> None:
    """Prints a table."""
    config = FlamingoConfig(**SIZES['3b'], image_size=320, image_tag=(1, 2, 3), extra_tokens=('<EOC>',))
    packed = {name: training.source_of(data) for name, data in training.paper('3b').datasets.items()}
    useful = [of_use(config, packed, images) for images in (1.25, 2.2)]
    print(f'of use: {useful[0] / 1e15:.2f} to {useful[1] / 1e15:.2f} PFLOP')
    print(f'{"rows":>12} {"PFLOP":>6} {"of use":>11} {"seconds on an H100 without recomputation, dots, full":>54}')
    for label, sources in (('one a row', alone(packed)), ('packed', packed)):
        counted = [flops.train_step(config, TRAINED, sources, remat) for remat in ('', 'dots', 'full')]
        done = counted[0]['total']
        share = f'{useful[0] / done:.0%} to {useful[1] / done:.0%}'
        seconds = ', '.join(f'{(one["total"] + one["recomputed"]) / CHIPS["h100"].flops:.2f}' for one in counted)
        print(f'{label:>12} {done / 1e15:6.2f} {share:>11} {seconds:>54}')


if __name__ == '__main__':
    main()
