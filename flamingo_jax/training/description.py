"""What the workdir of a run says of it: its model, its recipe, its config, and how large each tree is."""

import dataclasses
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
from clu import parameter_overview
from ml_collections import ConfigDict

from flamingo_jax.files import Path, as_path, write_whole
from flamingo_jax.inputs.sources.documents import contents
from flamingo_jax.inputs.sources.features import views_of
from flamingo_jax.model.flamingo import Params
from flamingo_jax.parallel import processes
from flamingo_jax.training.assemble import Parts
from flamingo_jax.training.config import recipe


def about(parts: Parts) -> dict[str, Any]:
    """What a checkpoint must match: the model, the trained trees, and the checksums of the frozen trees."""
    return dict(
        model=parts.model.config.to_json(),
        image_tag=parts.image_tag,
        trained=list(parts.trained),
        frozen={name: source.checksums[name] for name, source in parts.frozen.items()},
    )


def recipe_of(config: ConfigDict, parts: Parts) -> dict[str, Any]:
    """What a resumed run must have as it was: what is trained on, and how (`config.recipe`)."""
    model, sources = parts.model, parts.sources
    described = {f'datasets.{name}.contents': contents(source) for name, source in sources.items()}
    described |= {
        f'datasets.{name}.views_of_features': views_of(source.features, source.split)
        for name, source in sources.items()
        if source.features and source.images
    }
    return (
        described
        | recipe(config)
        | dict(
            tokenizer=hashlib.sha256(parts.tokenizer.model).hexdigest(),
            dtype=str(jnp.dtype(model.dtype)),
            attention_kernel=model.attention_kernel,
        )
    )


def write_run(workdir: str | Path, config: ConfigDict, parts: Parts) -> None:
    """Writes run.json, the tokenizer and the config to the workdir, in one process."""
    if jax.process_index() == 0:
        folder = as_path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        paths = {name: str(source.path) for name, source in parts.frozen.items()}
        write_whole(folder / 'run.json', f'{json.dumps(about(parts) | dict(frozen_paths=paths), indent=2)}\n'.encode())
        write_whole(folder / parts.tokenizer.file, parts.tokenizer.model)
        write_whole(folder / 'config.yaml', config.to_yaml().encode())


@dataclasses.dataclass
class _Tree:
    """A row of the table of parameters."""

    component: str
    role: str
    parameters: int
    dtype: str


def write_sizes(workdir: str | Path, trained: Params, frozen: Params) -> None:
    """Says how large each component tree is. parameters.txt in the workdir has every array, with its sharding."""
    roles = dict(trained=trained, frozen=frozen)
    trees = [(name, role, _by_name(tree)) for role, named in roles.items() for name, tree in named.items()]
    rows = [
        _Tree(name, role, int(parameter_overview.count_parameters(arrays)), str(next(iter(arrays.values())).dtype))
        for name, role, arrays in trees
    ]
    processes.say(parameter_overview.make_table(rows))
    if jax.process_index() == 0:
        table = parameter_overview.get_parameter_overview(_by_name(roles), include_stats='sharding')
        write_whole(as_path(workdir) / 'parameters.txt', f'{table}\n'.encode())


def _by_name(tree: Params) -> dict[str, jax.Array]:
    """The arrays of a tree by the names on their paths, also those of a quantised matrix."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}
