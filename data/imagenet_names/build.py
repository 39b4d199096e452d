"""An image set of the 1,000 kinds of things that an ImageNet trunk's own classifier knows, without any image.

    pip download --no-deps timm==1.0.19
    python -m data.imagenet_names.build --images=DATA/picture_dictionary/artists/1.0.0 --features=runs/artists \
        --vision=BUNDLE --labels=timm-1.0.19-py3-none-any.whl --wordnet=RAW --out=DATA \
        --features_out=runs/imagenet_names

The frozen trunk was trained with a classifier, which names photographs. A Flamingo keeps the trunk and throws the
classifier away. This builder reads it backward: it moves the features of drawings, flattened by half, along the weights
of a class until the classifier is sure of that class. A bridge that is trained on such features beside drawings learns
what the classifier knows, and so names photographs of which it has never seen one.

If the trunk keeps its classifier (`convert --classifier`), what that answers of moved features is their last place.

DATA/imagenet_names/full/1.1.0 has a record for each class, and runs/imagenet_names its features, a view for each
drawing that was moved. The pixels of a record are blank: train with the features. A class is called as the image set
calls it, or the nearest of its hypernyms in WordNet that has a name there ('king penguin' is 'penguin'), or else by its
first word. A class whose name, or its head noun, belongs to another split than train is left out. The style of these
records is 'imagenet'. Beside them are the image set's own drawings of things so called, to be examples for them.

--wordnet is the folder that data/dictionary_text/fetch.sh filled. The labels are those of timm (Apache-2.0).
"""

from absl import flags

from flamingo_jax import commands
from flamingo_jax.errors import UserError

if __name__ == '__main__':
    flags.DEFINE_string('images', None, 'Folder of the picture dictionary.', required=True)
    flags.DEFINE_string('features', None, 'Folder of its features, computed with the same trunk.', required=True)
    flags.DEFINE_string('vision', None, 'Bundle with the trunk, an EfficientNet-Lite0.', required=True)
    flags.DEFINE_string('labels', None, 'Wheel of timm, which has the names of the classes.', required=True)
    flags.DEFINE_string('wordnet', None, 'Folder that data/dictionary_text/fetch.sh filled.', required=True)
    flags.DEFINE_string('out', None, 'Folder for data sets.', required=True)
    flags.DEFINE_string('features_out', None, 'Folder for the features.', required=True)
    flags.DEFINE_list(
        'styles',
        ['noto', 'twemoji', 'openmoji-color', 'fluent-flat'],
        'Whose drawings are moved, and stand beside, and whose names are used.',
    )
    flags.DEFINE_integer('views', 6, 'Drawings that are moved to each class, and views of one beside.', lower_bound=1)
    flags.DEFINE_bool('overwrite', False, 'Build again if the data set exists.')
    commands.start(__doc__)

import io
import json
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from jaxtyping import Float, Int
from tqdm import tqdm

from data import building
from data.dictionary_text.lexicon import first_senses, read_synsets, wordnet_of
from data.picture_dictionary import stamps
from data.picture_dictionary.picture_dictionary_dataset_builder import image_features, names_of
from flamingo_jax.checkpoints import bundle
from flamingo_jax.conversion import vision_trunks
from flamingo_jax.features import description
from flamingo_jax.files import as_path, whole, write_whole
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.model.vision.classifier import Classifier

HYPERNYMS = 4  # How far up a name is looked for: 'beagle' is a hound, a hunting dog, a dog.
MARGINS = (1.0, 5.0)  # By how much the logit of a class is above every other, at least and at most.
CLASSES = 1_000
HIGHEST = 6.0  # The trunk's last activation is a ReLU6.


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The classes of ImageNet, without images, and drawings of things of the same names."""

    name = 'imagenet_names'
    VERSION = tfds.core.Version('1.1.0')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name='full', description='All classes that training may show.')]
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'It must have names.json.'

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(image_features())
        return tfds.core.DatasetInfo(builder=self, description=self.__doc__, features=features)

    def _split_generators(self, dl_manager):
        return dict(train=self._generate_examples(Path(dl_manager.manual_dir) / 'names.json'))

    def _generate_examples(self, file: Path):
        blank = io.BytesIO()
        PIL.Image.new('RGB', (8, 8), 'white').save(blank, 'webp')
        texts = dict(style='imagenet', category='imagenet', subcategory='', licence='Apache-2.0')
        told = json.loads(file.read_text())
        for number, name in told['classes'].items():
            text = dict(concept=name, source=f'class {number} of ImageNet, without an image', **texts)
            yield (
                int(number),
                dict(frames=[blank.getvalue()], languages=['en'], names=[name], heldout_languages=[], **text),
            )
        for index, record in drawn(told['images'], told['styles'], set(told['classes'].values())):
            yield CLASSES + index, record


def drawn(images: str, styles: Collection[str], names: Collection[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The training records of these artists that show things of these English names, with their places.

    Things of one name are one concept, which is its name, as for the classes.
    """
    for index, record in enumerate(open_split(images, 'train')):
        english = names_of(record).get('en', '')
        if record['style'].decode() in styles and english in names:
            yield index, record | dict(concept=english)


def read_labels(wheel: str) -> tuple[list[list[str]], list[str]]:
    """The words of each class, the best known first, and the number of its synset in WordNet 3.0.

    ValueError: this is not a wheel of timm.
    """
    try:
        with zipfile.ZipFile(wheel) as files:
            synsets = files.read('timm/data/_info/imagenet_synsets.txt').decode().split()
            lines = files.read('timm/data/_info/imagenet_synset_to_lemma.txt').decode().splitlines()
    except (KeyError, zipfile.BadZipFile) as error:
        raise UserError(f'{wheel} is not a wheel of timm ({error}). pip download --no-deps timm==1.0.19') from error
    words = dict(line.split('\t') for line in lines)
    return [words[synset].split(', ') for synset in synsets], [synset.removeprefix('n') for synset in synsets]


def named(
    words: list[list[str]], synsets: list[str], wordnet: Path, images: str, styles: Sequence[str]
) -> dict[int, str]:
    """The English names of the classes that training may show: number of the class -> its name.

    Args:
      words: of each class, the best known first.
      synsets: the number of each class's synset.
      wordnet: the folder of WordNet's files.
      images: the prepared picture dictionary.
      styles: whose names are taken. Icons of other artists have general ones ('container').
    """
    names, heldout, common = {}, {}, set()
    for split in ('train', 'validation', 'test'):
        for record in open_split(images, split):
            english = names_of(record).get('en')
            if english and not record['subcategory'].startswith(b'tux-'):  # Their names are captions.
                concept = record['concept'].decode()
                names.setdefault(concept, english)
                heldout[concept] = split != 'train'
                if record['style'].decode() in styles:
                    common.add(names[concept])
    families = stamps.Families(names)
    not_shown = {families.of_english(names[concept]) for concept, is_heldout in heldout.items() if is_heldout}

    meanings, called = first_senses(wordnet), {}
    for name in sorted(common):
        if meaning := meanings.get(name.casefold()):
            called.setdefault(meaning.synset, name)
    every = read_synsets(wordnet)

    def name_of(synset: str, otherwise: str) -> str:
        level = [synset]
        for _ in range(1 + HYPERNYMS):
            if found := [called[one] for one in level if one in called]:
                return found[0]
            level = [above for one in level for above in every[one].hypernyms]
        return otherwise

    found = {}
    for number, (own, synset) in enumerate(zip(words, synsets, strict=True)):
        name = name_of(synset, own[0])
        if not_shown.isdisjoint(map(families.of_english, (name, *own))):
            found[number] = name
    return found


def moved(
    features: Float[np.ndarray, 'n s d_v'],
    towards: Int[np.ndarray, ' n'],
    weights: Float[np.ndarray, 'classes d_v'],
    bias: Float[np.ndarray, ' classes'],
    rng: np.random.Generator,
) -> Float[np.ndarray, 'n s d_v']:
    """Features that the classifier takes for another class.

    Each is first flattened by half: half of it, and half of the mean of all. Then it moves along the weights of its
    class as far as a linear classifier of its mean over the s places needs to be sure by a random margin. The places
    move by different amounts.

    Args:
      features: the trunk's output, 0 to 6, not standardised.
      towards: the class of each.
      weights, bias: the classifier.
    """
    features = (features + features.mean((0, 1))) / 2
    rows, direction = np.arange(len(features)), weights - weights.mean(0)
    direction = (direction / np.linalg.norm(direction, axis=1, keepdims=True))[towards]
    logits, slopes = features.mean(1) @ weights.T + bias, direction @ weights.T
    missing = logits - logits[rows, towards][:, None] + rng.uniform(*MARGINS, (len(rows), 1))
    gained = slopes[rows, towards][:, None] - slopes
    missing[rows, towards], gained[rows, towards] = 0, 1
    distance = np.max(np.where(gained > 0, missing / np.maximum(gained, 1e-3), 0), axis=1)
    share = rng.uniform(0, 2, features.shape[:2])
    share /= share.mean(1, keepdims=True)
    return np.clip(features + (distance[:, None] * share)[..., None] * direction[:, None], 0, HIGHEST)


def main() -> None:
    """Builds the image set and its features."""
    f = flags.FLAGS
    vision = bundle.read(f.vision)
    tree = vision.params('vision', np.float32)
    mean, std = np.asarray(tree['mean']), np.asarray(tree['std'])
    classifier = (tree if vision.config.vision.classes else vision_trunks.packaged(CLASSES))['classifier']['linear']
    weights, bias = np.asarray(classifier['kernel']).T, np.asarray(classifier['bias'])
    image_format = ImageFormat.of(vision.config, vision.checksums['vision'])
    drawings = ImageSet(f.images, 'train', image_format, styles=f.styles, features=f.features)
    words, synsets = read_labels(f.labels)
    names = named(words, synsets, wordnet_of(Path(f.wordnet)), f.images, f.styles)

    folder = as_path(f.features_out)
    folder.mkdir(parents=True, exist_ok=True)
    told = dict(classes=names, images=f.images, styles=f.styles)
    write_whole(folder / 'names.json', json.dumps(told).encode())
    records = open_split(str(building.build(Builder, 'full', str(folder), f.out, f.overwrite)), 'train')
    # The order of the records is TFDS's own.
    is_class = np.array([record['style'] == b'imagenet' for record in records])
    classes = np.array([int(records[i]['source'].split()[1]) for i in np.flatnonzero(is_class)])
    by_image = {drawings.encoded(image): image for image in drawings.images}
    beside = [by_image[records[i]['frames'][0]] for i in np.flatnonzero(~is_class)]
    rng, spatial = np.random.default_rng(0), vision.config.vision.spatial(vision.config.image_size)
    with whole(folder / 'train.npy') as file:
        shape = (len(records), f.views, 1, image_format.spatial, image_format.width)
        features = np.lib.format.open_memmap(file, 'w+', np.float16, shape)
        for view in tqdm(range(f.views), unit=' views'):
            chosen = rng.choice(len(drawings.images), len(classes))
            shown = np.stack([drawings.frames(drawings.images[i])[0] for i in chosen]).astype(np.float32)
            made = moved(shown[:, :spatial] * std + mean, classes, weights, bias, rng)
            features[is_class, view, 0, :spatial] = (made - mean) / std
            if vision.config.vision.classes:
                answers = Classifier(CLASSES).apply({'params': tree['classifier']}, made.astype(np.float32))
                features[is_class, view, 0, spatial:] = np.asarray(answers)
            features[~is_class, view] = np.stack([drawings.frames(one, view % drawings.views) for one in beside])
        features.flush()
    about = description(records, f.out, f.views, vision)
    write_whole(folder / 'train.json', f'{json.dumps(about)}\n'.encode())


if __name__ == '__main__':
    main()
