"""ImageNet (ILSVRC 2012): 50,000 validation images of 1,000 classes. DEV in the paper's table of sets.

The folder is Kaggle's (`LOC_synset_mapping.txt`, `LOC_val_solution.csv`, `ILSVRC/Data/CLS-LOC/train` and `val`), or it
has `train` and `val` with a folder of images for each class, and a list of classes. The list is `classes.txt` or
`LOC_synset_mapping.txt`; a line has a WordNet id and a name: `n01440764 tench, Tinca tinca`. What follows a comma is
left out. The paper does not give its names. OpenFlamingo has those of CLIP, which you can put into `classes.txt`.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

from flamingo_jax.errors import UserError
from flamingo_jax.evaluation.benchmark import Item
from flamingo_jax.evaluation.datasets.classification import Classification, labels
from flamingo_jax.evaluation.metrics import accuracy
from flamingo_jax.evaluation.published import find, records, split_file

IMAGES = ('.jpeg', '.jpg', '.png', '.webp')


@dataclasses.dataclass
class ImageNet(Classification):
    """The splits are train and val. The score is top-1; a class is identified by its WordNet id, whatever the order."""

    metric = staticmethod(accuracy.score)

    def read(self, folder: pathlib.Path, split: str) -> Iterator[Item]:
        """The images; an id is a file name without its suffix."""
        split = split_file(split, dict(train='train', val='val'))
        names = read_classes(find(folder, 'classes.txt', 'LOC_synset_mapping.txt'))
        label = labels(names)
        classes = self.classes({label[key]: name for key, name in names.items()})
        kaggle = folder / 'ILSVRC/Data/CLS-LOC'
        images = find(kaggle if kaggle.is_dir() else folder, split)
        of_classes = sorted(path for path in images.iterdir() if path.is_dir())
        if split == 'val' and not of_classes:  # Kaggle's validation images lie in one folder.
            file = find(folder, 'LOC_val_solution.csv')
            for record in records(file, 'ImageId', 'PredictionString'):
                id, key = record['ImageId'], record['PredictionString'].split()[0]
                yield self.class_item(id, images / f'{id}.JPEG', label[_known(key, label, file)], classes)
        for of_class in of_classes:
            answer = label[_known(of_class.name, label, images)]
            for image in sorted(path for path in of_class.iterdir() if path.suffix.lower() in IMAGES):
                yield self.class_item(image.stem, image, answer, classes)


def read_classes(file: pathlib.Path) -> dict[str, str]:
    """WordNet id -> name, sorted by id. ValueError for a line of another form, or an id that is there twice."""
    names: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), 1):
        key, _, name = line.strip().partition(' ')
        if not key:
            continue
        if not (key[0] == 'n' and key[1:].isdigit() and name.strip()) or key in names:
            raise UserError(
                f'{file}, line {number} is {line!r}. Each line must have a WordNet id that no other line has, and a '
                'name: n01440764 tench. Names alone could be of another order.'
            )
        names[key] = name.split(',')[0].strip()
    return dict(sorted(names.items()))


def _known(key: str, label: dict[str, str], where: pathlib.Path) -> str:
    if key not in label:
        raise UserError(f'{where} has the class {key!r}, which the list of classes does not name.')
    return key
