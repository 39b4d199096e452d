"""The flags by which a build changes rules of pages: --rule.NAME=VALUE, a flag for each field of `PageRules`."""

import dataclasses

from absl import flags

from flamingo_jax.building.rules import DEFAULT, PageRules

flags.disclaim_key_flags()  # A flag that is defined here belongs to the command that calls it.


def define() -> None:
    """Defines a flag for each rule."""
    for field in dataclasses.fields(PageRules):
        value, name = getattr(DEFAULT, field.name), f'rule.{field.name}'
        shown = ','.join(value) or 'all' if isinstance(value, tuple) else value
        meaning = f'Rule of flamingo_jax/building/rules.py; by default {shown}.'
        if isinstance(value, bool):
            flags.DEFINE_bool(name, None, meaning)
        elif isinstance(value, int):
            flags.DEFINE_integer(name, None, meaning, lower_bound=0)
        elif isinstance(value, float):
            flags.DEFINE_float(name, None, meaning, lower_bound=0.0)
        else:
            flags.DEFINE_list(name, None, meaning)


def changed(rules: PageRules) -> PageRules:
    """The rules, with those that flags gave in place of their own."""
    given = {field.name: flags.FLAGS[f'rule.{field.name}'].value for field in dataclasses.fields(PageRules)}
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value is not None
    }
    return dataclasses.replace(rules, **values)
