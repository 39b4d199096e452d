"""Lays the docs site out as the repository, so that relative links hold in the site and on GitHub alike."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
WHOLE = ('docs', 'research', 'examples')
LINKED = ('data', 'experiments', 'benchmarks', 'flamingo_jax')  # Their pages, and the sources that pages link to.


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of the theme, and those of the repository in the place of those of docs/."""
    found = [path for path in ROOT.iterdir() if path.suffix in ('.md', '.cff') or path.name == 'LICENSE']
    found += [path for folder in WHOLE for path in (ROOT / folder).rglob('*')]
    found += [path for folder in LINKED for path in (ROOT / folder).rglob('*') if path.suffix in ('.md', '.py', '.sh')]
    names = [path.relative_to(ROOT).as_posix() for path in found if path.is_file() and '__pycache__' not in path.parts]
    pages = [File.generated(config, name, abs_src_path=str(ROOT / name)) for name in sorted(names)]
    return Files([file for file in files if file.src_dir != config.docs_dir] + pages)
