"""Configs of which there are several kinds: a folder has one file for each, found by its name.

A new connector or bridge is one file, with a config and a module; nothing else is edited.
"""

import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from flamingo_jax.errors import UserError
from flamingo_jax.ranges import choose, require

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Component:
    """The config of one kind of component."""

    kind: ClassVar[str]  # The name of its file, by which a bundle finds it.

    def to_json(self) -> dict[str, Any]:
        """Its fields, and its kind."""
        return json.loads(json.dumps(dataclasses.asdict(self))) | dict(kind=self.kind)  # Tuples become lists.

    def as_kind(self, kind: str, **changes: Any) -> 'Component':
        """A config of another kind, with the fields that both have, and the changes."""
        other = find(type(self).__module__.rpartition('.')[0], kind)
        names = {field.name for field in dataclasses.fields(self)} & {field.name for field in dataclasses.fields(other)}
        return other(**{name: getattr(self, name) for name in names} | changes)


def find(folder: str, kind: str) -> type[Any]:
    """The config class of a kind, in the file of that name.

    Args:
      folder: as a package, `flamingo_jax.model.connectors`.

    Raises:
      UserError: there is no such kind; the message names all.
    """
    try:
        module = importlib.import_module(f'{folder}.{kind}')
    except ImportError as error:
        files = (info.name for info in pkgutil.iter_modules(importlib.import_module(folder).__path__))
        names = sorted(name for name in files if not folder.endswith(f'.{name}s'))  # Without what all kinds share.
        raise UserError(f'There is no {kind!r} in {folder}. There are {", ".join(names)}.') from error
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Component) and getattr(value, 'kind', '') == kind:
            return value
    raise UserError(f'{module.__file__} has no config of the kind {kind!r}.')


def build(cls: type[T], fields: dict[str, Any], name: str) -> T:
    """A config from its fields as JSON has them. UserError names a field that it does not have."""
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(fields) - known):
        raise UserError(
            f'Unknown fields in the config of {name}: {unknown}. Known: {sorted(known)}. If a newer version wrote '
            'them, update flamingo_jax.'
        )
    return cls(**{key: _tuples(value) for key, value in fields.items()})


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], of: str = '') -> Iterator[str]:
    """The fields, as JSON has them, in which two configs differ: `xattn.gates = False, not True`."""
    if ours.get('kind') != theirs.get('kind'):  # Whose fields are then not the same.
        yield f'{of}kind = {ours.get("kind")!r}, not {theirs.get("kind")!r}'
        return
    for name, value in ours.items():
        if isinstance(value, Mapping) and isinstance(theirs[name], Mapping):
            yield from differences(value, theirs[name], f'{of}{name}.')
        elif value != theirs[name]:
            yield f'{of}{name} = {value!r}, not {theirs[name]!r}'


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def check(config: Any, part: str, sizes: str, **choices: Iterable[str]) -> None:
    """UserError if one of the named sizes is no positive whole number, or a choice is unknown."""
    where, values = part.removesuffix('.'), {name: getattr(config, name) for name in (*sizes.split(), *choices)}
    require(where, values, 'a whole number, 1 or more', *sizes.split())
    choose(where, values, **choices)
